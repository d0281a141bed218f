package e2e

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/berth-hpc/berth/testdata/cluster"
)

// warmedNodes is what `berth warm --json` says of nodes.
type warmedNodes struct {
	Nodes []struct {
		Node, State, Reason string
		Report              struct{ Of, Ready, Pulled int }
	}
}

// warm runs `berth warm` on the submit host as root, and wants an exit code and
// STATE READY/OF PULLED for each node.
func (s *site) warm(t *testing.T, args string, code int, want map[string]string) warmedNodes {
	t.Helper()
	r := s.With(t).Run(t.Context(), "ctl", "root", "sh", "-c", "cd /root && timeout 120 berth warm --json "+args)
	var got warmedNodes
	if err := json.Unmarshal([]byte(r.Stdout), &got); err != nil || r.Code != code || len(got.Nodes) != len(want) {
		t.Fatalf("want exit code %d: %v %v", code, err, r)
	}
	for _, n := range got.Nodes {
		if text := fmt.Sprintf("%s %d/%d %d", n.State, n.Report.Ready, n.Report.Of, n.Report.Pulled); text != want[n.Node] {
			t.Errorf("%s: %s, want %s (%s)", n.Node, text, want[n.Node], n.Reason)
		}
	}
	return got
}

// asked counts the registry's requests whose lines match.
func (r *trickling) asked(pattern string) int {
	n, re := 0, regexp.MustCompile(pattern)
	for _, q := range r.reg.Requests() {
		if re.MatchString(q.String()) {
			n++
		}
	}
	return n
}

// TestWarm is an administrator's day: three images on the nodes of a partition
// of which one is drained, the same again, jobs that find them, keeps that end,
// a machine with too much to do, and a queue whose images are there first.
func TestWarm(t *testing.T) {
	s := newSite(t, withConfig(fmt.Sprintf("[registry.%q]\ninsecure = true\n[[policy.rule]]\nname = \"not bob\"\nimages = [\"%s/denied\"]\nusers = [\"bob\"]\naction = \"deny\"\n[container]\n", trickle, trickle)), withJobContainer)
	reg := s.startTrickling(t)
	var list strings.Builder
	blobs := map[string]*trickled{}
	for _, name := range []string{"first", "second", "third"} {
		var image string
		image, blobs[name] = reg.image(t, name, 200*time.Millisecond)
		fmt.Fprintf(&list, "[[image]]\nname = %q\nkeep = %q\n", image, map[string]string{"first": "5s", "second": "24h", "third": "forever"}[name])
	}
	s.MustRun(t.Context(), "ctl", "root", "sh", "-c", "cat >/root/images.toml <<'END'\n"+list.String()+"END\n")
	transfers := func(want int) {
		t.Helper()
		for name, b := range blobs {
			if count, whole := reg.transfers(b); count != want || whole != want {
				t.Errorf("%s: asked for %d times, sent %d times, want %d", name, count, whole, want)
			}
		}
	}
	const args = "-f images.toml --lock images.lock --partition main --spread 100ms"

	s.MustRun(t.Context(), "ctl", "root", "scontrol", "update", "NodeName=n3", "State=DRAIN", "Reason=broken fan")
	const tags = `/manifests/1 \d+ \d+$`
	asked := reg.asked(tags) // when they were pushed
	got := s.warm(t, args, 75, map[string]string{"n1": "ready 3/3 3", "n2": "ready 3/3 3", "n3": "skipped 0/0 0"})
	if n3 := got.Nodes[2]; !strings.Contains(n3.Reason, "drained, broken fan") {
		t.Errorf("%+v", n3)
	}
	transfers(2)
	s.n1(t, "mountpoint -q /run/berth") // made in the node's mount namespace, not in the job's
	if n := reg.asked(tags) - asked; n != len(blobs) {
		t.Errorf("%d tags were asked for %d times", len(blobs), n)
	}
	s.MustRun(t.Context(), "ctl", "root", "scontrol", "update", "NodeName=n3", "State=RESUME")
	until(t, 30*time.Second, "n3 answers", func() bool { return s.With(t).NodeState("n3") == "idle" })
	s.warm(t, args, 0, map[string]string{"n1": "ready 3/3 0", "n2": "ready 3/3 0", "n3": "ready 3/3 3"})
	transfers(3)
	before := len(reg.reg.Requests())
	s.warm(t, args, 0, map[string]string{"n1": "ready 3/3 0", "n2": "ready 3/3 0", "n3": "ready 3/3 0"})
	if more := len(reg.reg.Requests()) - before; more != 0 {
		t.Errorf("a run with nothing to do made %d requests", more)
	}
	full := s.submit(t, "-w n2 --exclusive -o /dev/null --wrap 'sleep 1000'")
	until(t, 20*time.Second, "n2 is full", func() bool { return s.job(t, full, "JobState") == "RUNNING" })
	s.warm(t, "-f images.lock --nodes n[1-2] --wait 8s", 75, map[string]string{"n1": "ready 3/3 0", "n2": "busy 0/0 0"})
	if left := s.With(t).MustRun(t.Context(), "ctl", "root", "squeue", "-h", "-o", "%i"); strings.TrimSpace(left) != full {
		t.Errorf("jobs are left: %s", left)
	}
	s.With(t).MustRun(t.Context(), "ctl", "root", "scancel", full)

	r := s.as(t, "alice", "srun -N3 --container-image="+trickle+"/second:1 head -n1 /share/second | uniq")
	if r.Code != 0 || r.Stdout != "second\n" {
		t.Error(r)
	}
	transfers(3)
	until(t, 30*time.Second, "the keep of the first image is over", func() bool {
		return strings.TrimSpace(s.n1(t, "berth gc --unused-for 1ns >/dev/null; ls -d /var/lib/berth/images/sha256/*.p* | wc -l")) == "2"
	})
	if out := s.n1(t, "berth images"); strings.Contains(out, "/first:1") || !strings.Contains(out, "for ever") {
		t.Errorf("what is kept: %s", out)
	}
	s.busy(t, reg)
	s.queue(t, reg)
	s.idle(t)
}

// busy: with too much to do, nothing is transferred.
func (s *site) busy(t *testing.T, reg *trickling) {
	t.Helper()
	image, blob := reg.image(t, "busy", 100*time.Millisecond)
	r := s.With(t).Run(t.Context(), "n1", "root", "sh", "-c", "echo "+image+" | berth warm -f - --max-load 0.00001 --load-wait 1s")
	if count, _ := reg.transfers(blob); r.Code != 75 || !strings.HasPrefix(r.Stdout, "postponed ") || count != 0 {
		t.Errorf("%d transfers: %v", count, r)
	}
}

// queue: what jobs will need that wait is there when they start, but for what
// their users may not have, or what wants a login.
func (s *site) queue(t *testing.T, reg *trickling) {
	t.Helper()
	s.annotate(t)
	image, blob := reg.image(t, "queued", 200*time.Millisecond)
	denied, never := reg.image(t, "denied", 200*time.Millisecond)
	id := s.submit(t, "-w n1 -o /shared/queued.out --begin=now+1hour --container-image="+image+" --wrap 'cat /share/queued'")
	for _, user := range []string{"bob", "alice"} {
		r := s.as(t, user, "sbatch -w n1 -o /dev/null --hold --container-pin=no --container-image="+trickle+"/missing:1 --wrap true && sbatch -w n1 -o /dev/null --hold --container-pin=no --container-image=./x.sqsh --wrap true")
		if r.Code != 0 {
			t.Fatal(r)
		}
	}
	r := s.as(t, "bob", "sbatch -w n1 -o /dev/null --hold --container-pin=no --container-image="+denied+" --wrap true")
	if r.Code != 0 {
		t.Fatal(r)
	}
	warm := func() cluster.Result {
		return s.With(t).Run(t.Context(), "n1", "root", "berth", "warm", "--queue", "--max-load=100000", "--json")
	}
	if r := warm(); !strings.Contains(r.Stdout, `"pulled"`) || !strings.Contains(r.Stdout, "not bob") || r.Code == 0 {
		t.Errorf("want one pulled, one denied and one missing: %v", r)
	}
	if count, whole := reg.transfers(blob); count != 1 || whole != 1 {
		t.Errorf("the queued image was asked for %d times and sent %d times", count, whole)
	}
	if count, _ := reg.transfers(never); count != 0 || reg.asked("/denied/") > reg.asked("(PUT|POST|PATCH|HEAD) .*/denied/") {
		t.Errorf("a denied image was asked for: %d layers", count)
	}
	s.With(t).MustRun(t.Context(), "ctl", "root", "scontrol", "update", "JobId="+id, "StartTime=now")
	if state, _ := s.ended(t, id, 40*time.Second); state != "COMPLETED" {
		t.Errorf("the queued job: %s", state)
	}
	if count, _ := reg.transfers(blob); count != 1 {
		t.Errorf("the job pulled again: %d", count)
	}
	s.With(t).MustRun(t.Context(), "ctl", "root", "scancel", "--user=bob")
	s.With(t).MustRun(t.Context(), "ctl", "root", "scancel", "--user=alice")
}

// TestWarmClusterStore: of nodes that share a store one pulls.
func TestWarmClusterStore(t *testing.T) {
	const again = "ready 1/1 0"
	for _, use := range []string{"copy", "mount"} {
		t.Run(use, func(t *testing.T) {
			s, reg := clusterSite(t, use, true)
			image, blob := reg.image(t, "shared", time.Second)
			s.MustRun(t.Context(), "ctl", "root", "sh", "-c", "echo "+image+" >/root/images.txt")
			const args = "-f images.txt --keep-for 24h -w n[1-2]"
			if r := s.With(t).Run(t.Context(), "ctl", "root", "sh", "-c", "cd /root && berth warm "+args); r.Code != 0 {
				t.Fatal(r)
			}
			if count, whole := reg.transfers(blob); count != 1 || whole != 1 {
				t.Errorf("the layer was asked for %d times and arrived %d times", count, whole)
			}
			s.warm(t, args, 0, map[string]string{"n1": again, "n2": again})
			if out := s.With(t).MustRun(t.Context(), "ctl", "root", "berth", "images", "--cluster"); !strings.Contains(out, "until 2") {
				t.Errorf("not kept in the shared store: %s", out)
			}
			if r := s.as(t, "alice", "srun -N2 -w n[1-2] --container-image="+image+" head -n1 /share/shared | uniq"); r.Code != 0 || r.Stdout != "shared\n" {
				t.Error(r)
			}
			if count, _ := reg.transfers(blob); count != 1 {
				t.Errorf("jobs pulled: %d transfers", count)
			}
			s.idle(t)
			if own := s.n1(t, "ls /var/lib/berth/images/sha256 | wc -l"); strings.TrimSpace(own) != map[string]string{"copy": "1", "mount": "0"}[use] {
				t.Errorf("n1 has %s images of its own", own)
			}
		})
	}
}
