package e2e

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/berth-hpc/berth/testdata/cluster"
)

// sharedStore is the store that the nodes of a test share.
const sharedStore = "/shared/berth"

// clusterSite is a site whose nodes share a store, with images from a registry
// that trickles.
func clusterSite(t *testing.T, use string, idmap bool, options ...option) (*site, *trickling) {
	t.Helper()
	config := fmt.Sprintf("[registry.%q]\ninsecure = true\n[cluster]\ndir = %q\nuse = %q\nlock_timeout = \"6s\"\n[container]\nidmap = %v\n",
		trickle, sharedStore, use, idmap)
	s := newSite(t, append(options, withConfig(config))...)
	s.MustRun(t.Context(), "ctl", "root", "install", "-d", "-m", "755", sharedStore)
	return s, s.startTrickling(t)
}

// TestClusterStore is a job of three nodes whose image one of them pulls, and
// what comes after it.
func TestClusterStore(t *testing.T) {
	for use, idmap := range map[string]bool{"copy": true, "mount": false} {
		t.Run(use, func(t *testing.T) {
			s, reg := clusterSite(t, use, idmap)
			image, blob := reg.image(t, "shared", 12*time.Second)
			r := s.as(t, "alice", "srun -N3 --container-image="+image+" sh -c 'head -n1 /share/shared; echo $SLURMD_NODENAME' | sort")
			if r.Code != 0 || r.Stdout != "n1\nn2\nn3\nshared\nshared\nshared\n" {
				t.Fatal(r)
			}
			if waiting := regexp.MustCompile(`berth: waiting for \S+: n[123] is getting it: `); !waiting.MatchString(r.Stderr) {
				t.Errorf("nobody says whom the nodes wait for: %v", r)
			}
			r = s.as(t, "bob", "srun -N3 --container-writable --container-image="+image+" sh -c 'echo more >>/share/shared && tail -n1 /share/shared'")
			if r.Code != 0 || r.Stdout != "more\nmore\nmore\n" {
				t.Error(r)
			}
			if count, whole := reg.transfers(blob); count != 1 || whole != 1 {
				t.Errorf("the layer was asked for %d times and arrived %d times", count, whole)
			}
			s.idle(t)
			s.checkStores(t, use)
			s.removeShared(t, use, image)
		})
	}
}

// removeShared removes the image from the shared store as its admin, which a
// node that has it mounted keeps from happening.
func (s *site) removeShared(t *testing.T, use, image string) {
	t.Helper()
	admin := func(args ...string) cluster.Result {
		return s.With(t).Run(t.Context(), "ctl", "root", append([]string{"berth"}, args...)...)
	}
	if r := s.as(t, "bob", "berth rm --cluster "+image); r.Code != 64 {
		t.Errorf("a user may remove it: %v", r)
	}
	if use == "mount" {
		id := s.submit(t, "-o /dev/null -w n1 --container-image="+image+" --wrap 'sleep 1000'")
		until(t, 20*time.Second, "n1 has it mounted", func() bool {
			return strings.Contains(admin("images", "--cluster").Stdout, " node n1 ")
		})
		if r := admin("rm", "--cluster", image); r.Code != 64 || !strings.Contains(r.Stderr, "in use by node n1") {
			t.Errorf("a mounted image was removed: %v", r)
		}
		s.With(t).MustRun(t.Context(), "ctl", "root", "scancel", id)
		s.idle(t)
	}
	if r := admin("rm", "--cluster", image); r.Code != 0 || !strings.HasPrefix(r.Stdout, "removed sha256:") {
		t.Error(r)
	}
	if r := admin("gc", "--cluster"); r.Code != 0 {
		t.Error(r)
	}
	if r := admin("images", "--cluster", "--json"); r.Stdout != "[]\n" {
		t.Errorf("it is still there: %v", r)
	}
}

// checkStores looks where images are when no job is left.
func (s *site) checkStores(t *testing.T, use string) {
	t.Helper()
	own := map[string]string{"copy": "1", "mount": "0"}[use]
	for _, node := range []string{"n1", "n2", "n3"} {
		got := s.With(t).MustRun(t.Context(), node, "root", "sh", "-c", "ls /var/lib/berth/images/sha256 | wc -l")
		if strings.TrimSpace(got) != own {
			t.Errorf("%s has %s images of its own, want %s", node, got, own)
		}
	}
	s.nothingShared(t)
}

// TestJobsArePinned is what becomes of jobs over several nodes whose registry
// did not answer at submission: without a shared store they are refused, with
// one the first node's answer holds, and --container-pin has the last word.
func TestJobsArePinned(t *testing.T) {
	s, reg := clusterSite(t, "copy", true)
	image, _ := reg.image(t, "moving", time.Second)
	unreachable := "HTTP_PROXY=http://127.0.0.1:9 "
	t.Run("the first node's answer holds", func(t *testing.T) {
		script := unreachable + `salloc -N2 sh -c '
			srun -N1 -n1 -w $(scontrol show hostnames | head -n1) --container-image=` + image + ` ls /share
			touch /shared/moved.new; while [ ! -e /shared/moved ]; do sleep 0.1; done
			srun -N2 --container-image=` + image + ` ls /share; rm /shared/moved'`
		s.Spawn("pinned", cluster.Command{Machine: "ctl", User: "alice", Args: []string{"sh", "-c", script + " >/shared/pinned.out 2>&1; touch /shared/pinned.end"}})
		defer s.Stop("pinned")
		exists := func(name string) func() bool {
			return func() bool { return s.With(t).Run(t.Context(), "ctl", "root", "test", "-e", "/shared/"+name).Code == 0 }
		}
		until(t, time.Minute, "the first step is over", exists("moved.new"))
		reg.push(t, "moving", "moved")
		s.MustRun(t.Context(), "ctl", "root", "mv", "/shared/moved.new", "/shared/moved")
		until(t, time.Minute, "the second step is over", exists("pinned.end"))
		out := s.With(t).MustRun(t.Context(), "ctl", "root", "cat", "/shared/pinned.out")
		if got := strings.Count(out, "moving\n"); got != 3 || strings.Contains(out, "moved") {
			t.Errorf("want the first image three times: %s", out)
		}
	})
	for _, tc := range []struct {
		name, options string
		code          int
		want, says    string
	}{
		{"pinned at submission", "-N2", 0, `^moved\nmoved\n$`, quiet},
		{"require", "-N2 --container-pin=require", 0, `^moved\nmoved\n$`, quiet},
		{"nonsense", "--container-pin=maybe", 255, `^$`, `yes, no or require`},
	} {
		t.Run(tc.name, func(t *testing.T) { s.pin(t, "", image, tc.options, tc.code, tc.want, tc.says) })
	}
	t.Run("required and unreachable", func(t *testing.T) {
		s.pin(t, unreachable, image, "-N2 --container-pin=require", 1, `^$`, `not submitted`)
	})
	s.idle(t)
	// Without a shared store.
	s.MustRun(t.Context(), "ctl", "root", "sh", "-c", "rm -r "+sharedStore)
	for _, node := range []string{"n1", "n2", "n3"} {
		s.MustRun(t.Context(), node, "root", "sed", "-i", "/^\\[cluster\\]/,/^lock_timeout/d", "/etc/berth/berth.toml")
	}
	t.Run("refused", func(t *testing.T) {
		s.pin(t, unreachable, image, "-N2", 1, `^$`, `--container-pin=no`)
	})
	t.Run("each for itself", func(t *testing.T) {
		s.pin(t, unreachable, image, "-N2 --container-pin=no", 0, `^moved\nmoved\n$`, quiet)
	})
	s.idle(t)
}

// quiet is what Slurm says of a step whose nodes are not free at once.
const quiet = `^(srun: job \d+ [^\n]*\n)*$`

// pin runs a step, as bob, who has no answer of an earlier submission, where the
// environment is to keep submission from the registry.
func (s *site) pin(t *testing.T, environment, image, options string, code int, want, says string) {
	t.Helper()
	user := "alice"
	if environment != "" {
		user = "bob"
	}
	r := s.as(t, user, environment+"srun "+options+" --container-image="+image+" ls /share")
	if r.Code != code || !regexp.MustCompile(want).MatchString(r.Stdout) || !regexp.MustCompile(says).MatchString(r.Stderr) {
		t.Errorf("want exit code %d, %s, %s: %v", code, want, says, r)
	}
}

// TestClusterStoreTakeOver kills the worker that pulls for all: its own job
// fails, the one that waits on another node gets the image.
func TestClusterStoreTakeOver(t *testing.T) {
	s, reg := clusterSite(t, "copy", true)
	jobs := s.watchJobs(t)
	image, blob := reg.image(t, "taken", 35*time.Second)
	p := &longPull{site: s, registry: reg, jobs: jobs}
	first := p.submitImage(t, image, "-w n1")
	soon(t, blob.begun, 30*time.Second, "the pull begins")
	second := p.submitImage(t, image, "-w n2")
	jobs.reaches(t, second, slack*20*time.Second, "RUNNING")
	until(t, 20*time.Second, "n2 waits for n1", func() bool {
		return strings.Contains(s.With(t).Run(t.Context(), "n2", "root", "berth", "node", "status").Stdout, "n1 is ")
	})
	// Killed before its task waits, the step would have it prepared anew.
	until(t, 20*time.Second, "the first job's task waits", func() bool {
		return strings.Contains(s.With(t).Run(t.Context(), "ctl", "root", "cat", "/shared/pull."+first+".out").Stdout, "berth: ")
	})
	s.With(t).MustRun(t.Context(), "n1", "root", "pkill", "-9", "-f", "[b]erth node worker")
	jobs.reaches(t, first, slack*30*time.Second, "FAILED")
	p.completed(t, second, 2*time.Minute)
	third := p.submitImage(t, image, "-w n3")
	p.completed(t, third, 20*time.Second)
	if count, whole := reg.transfers(blob); count != 2 || whole != 1 {
		t.Errorf("the layer was asked for %d times and arrived %d times", count, whole)
	}
	s.idle(t)
}
