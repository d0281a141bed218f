package e2e

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/berth-hpc/berth/testdata/cluster"
)

// A registry whose answers never end: a byte a second.
const slow = "10.97.0.1:5001"

func (s *site) startSlowRegistry(t *testing.T) {
	t.Helper()
	s.Spawn("slow", cluster.Command{Machine: "ctl", Args: []string{"perl", "-MIO::Socket::INET", "-e", `
		$SIG{CHLD} = "IGNORE";
		my $server = IO::Socket::INET->new(LocalAddr => "` + slow + `", Listen => 128, ReuseAddr => 1) or die;
		while (my $client = $server->accept) {
			next if fork;
			$client->autoflush(1);
			while (<$client>) { last if /^\r\n/ }
			print $client "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n";
			print $client "Content-Type: application/vnd.oci.image.manifest.v1+json\r\n\r\n";
			while (sleep 1) { print $client " " or exit }
		}`}})
}

// submit submits a job as alice and returns its number.
func (s *site) submit(t *testing.T, args string) string {
	t.Helper()
	r := s.as(t, "alice", "sbatch --parsable "+args)
	if r.Code != 0 {
		t.Fatal(r)
	}
	return strings.TrimSpace(r.Stdout)
}

// job returns one field of scontrol show job, as in "JobState".
func (s *site) job(t *testing.T, id, field string) string {
	t.Helper()
	out := s.With(t).MustRun(t.Context(), "ctl", "root", "scontrol", "-o", "show", "job", id)
	m := regexp.MustCompile(`\b` + field + `=(\S*)`).FindStringSubmatch(out)
	if m == nil {
		t.Fatalf("no %s in %s", field, out)
	}
	return m[1]
}

// slack is how much slower a machine may be than one that has nothing else to
// do, before what does not happen counts as not happening at all.
const slack = 4

// until polls a condition of the cluster, which has no event to wait for. A
// quiet machine needs less than limit.
func until(t *testing.T, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(slack * limit)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", slack*limit, what)
		}
	}
}

func (s *site) running(t *testing.T, id string) {
	t.Helper()
	until(t, 20*time.Second, "job "+id+" runs", func() bool { return s.job(t, id, "JobState") == "RUNNING" })
	until(t, 20*time.Second, "its task waits", func() bool {
		return s.With(t).Run(t.Context(), "n1", "root", "pgrep", "-f", "[b]erth-create step").Code == 0
	})
}

func (s *site) ended(t *testing.T, id string, limit time.Duration) (state, code string) {
	t.Helper()
	until(t, limit, "job "+id+" ends", func() bool {
		state = s.job(t, id, "JobState")
		return state != "RUNNING" && state != "PENDING" && state != "COMPLETING" && state != "CONFIGURING"
	})
	return state, s.job(t, id, "ExitCode")
}

// TestWaitingForAnImage: a job whose image does not come waits where the user
// can end it, the prolog does not wait with it, and no node is drained.
func TestWaitingForAnImage(t *testing.T) {
	config := fmt.Sprintf("[registry.%q]\ninsecure = true\n[container]\n", slow)
	s := newSite(t, withConfig(config), withConf("PrologEpilogTimeout=8", "KillWait=5", "PrologFlags=Alloc"), withJobContainer)
	s.startSlowRegistry(t)
	hang := "-w n1 -o /shared/%j.out --container-image=" + slow + "/x:1 --wrap 'echo ran'"

	t.Run("scancel", func(t *testing.T) {
		id := s.submit(t, hang)
		s.running(t, id)
		s.With(t).MustRun(t.Context(), "ctl", "alice", "scancel", id)
		if state, _ := s.ended(t, id, 20*time.Second); state != "CANCELLED" {
			t.Errorf("state %s", state)
		}
		s.idle(t)
	})
	t.Run("time limit", func(t *testing.T) {
		id := s.submit(t, "-t 1 "+hang)
		s.running(t, id)
		if state, _ := s.ended(t, id, 110*time.Second); state != "TIMEOUT" {
			t.Errorf("state %s", state)
		}
		if out := s.With(t).MustRun(t.Context(), "ctl", "root", "cat", "/shared/"+id+".out"); !strings.Contains(out, "berth: ") {
			t.Errorf("no progress for the user while they waited: %q", out)
		}
		s.idle(t)
	})
	for name, pattern := range map[string]string{"helper": "[b]erth-create step", "worker": "[b]erth node (worker|fetch)"} {
		t.Run("kill -9 of the "+name, func(t *testing.T) {
			id := s.submit(t, hang)
			s.running(t, id)
			s.With(t).MustRun(t.Context(), "n1", "root", "sh", "-c", "pids=$(pgrep -f '"+pattern+"') && { kill -9 $pids || true; }") // one may take the other along
			if state, code := s.ended(t, id, 30*time.Second); state != "FAILED" || strings.HasPrefix(code, "0:") {
				t.Errorf("state %s, exit code %s", state, code)
			}
			out := s.With(t).MustRun(t.Context(), "ctl", "root", "cat", "/shared/"+id+".out")
			if !strings.Contains(out, "berth: error: ") || strings.Contains(out, "ran") {
				t.Errorf("the user reads %q", out)
			}
			s.idle(t)
		})
	}
}

// killHelper waits for a step's helper to appear, then so long, and kills it
// and its children. It looks at /proc itself: pgrep takes longer than a step.
const killHelper = `
	sub found {
		my @pids;
		for my $dir (glob "/proc/[0-9]*") {
			open(my $f, "<", "$dir/cmdline") or next;
			push @pids, substr($dir, 6) if (<$f> // "") =~ /berth-create\x00(step|inside|userns|init)/;
		}
		return @pids;
	}
	my $end = time + 10;
	1 until found() or time > $end;
	select undef, undef, undef, $ARGV[0];
	kill 9, found()`

// TestHelperKilledAnywhere kills the helper and its children at random moments
// of many steps. A step either ran and says so, or fails; none is in between.
func TestHelperKilledAnywhere(t *testing.T) {
	s := newSite(t, withConf("KillWait=5"))
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	s.as(t, "alice", "srun -w n1 --container-image="+tiny+" true") // from here on the image is there

	outcomes := map[string]int{}
	for range 25 {
		delay := fmt.Sprintf("%.4f", random.Float64()*0.05)
		var wg sync.WaitGroup
		wg.Go(func() { s.With(t).Run(t.Context(), "n1", "root", "perl", "-e", killHelper, delay) })
		r := s.as(t, "alice", "timeout 100 srun -w n1 -n2 --container-image="+tiny+" echo ran")
		wg.Wait()
		ran := strings.Count(r.Stdout, "ran")
		switch {
		case r.Code == 0 && ran == 2:
			outcomes["ran"]++
		case r.Code != 0 && r.Code != 124:
			outcomes["failed"]++
		default:
			t.Errorf("after %s s: %v", delay, r)
		}
	}
	t.Log(outcomes)
	if outcomes["failed"] == 0 {
		t.Error("no kill hit a step: the test shows nothing")
	}
	s.idle(t)
}

// TestJobContainer: with job_container/tmpfs a job has a /tmp of its own, and
// so has its container.
func TestJobContainer(t *testing.T) {
	bothWays(t, func(t *testing.T, s *site) {
		r := s.as(t, "alice", "salloc -w n1 sh -c 'srun sh -c \"echo job >/tmp/mark\"; srun --container-image="+tiny+" cat /tmp/mark' 2>/dev/null")
		if r.Stdout != "job\n" {
			t.Errorf("the container does not see the job's /tmp: %v", r)
		}
		r = s.as(t, "alice", "srun -w n1 --container-image="+tiny+" ls /tmp")
		if strings.Contains(r.Stdout, "mark") {
			t.Errorf("the container sees another job's /tmp: %v", r)
		}
		s.idle(t)
	}, withJobContainer, withConf("PrologFlags=Contain"))
}

// TestTaskProlog: Slurm runs the site's TaskProlog after the task has joined,
// so the file must be there, and what it prints must count.
func TestTaskProlog(t *testing.T) {
	prolog := writeFile(t, "taskprolog", "#!/bin/sh\necho export FROM_PROLOG=yes\n")
	s := newSite(t, withConf("TaskProlog=/etc/slurm-taskprolog"), func(set *setup) {
		set.Cluster.Files = append(set.Cluster.Files, prolog+":/etc/slurm-taskprolog")
	})
	for _, node := range []string{"n1", "n2", "n3"} {
		s.MustRun(t.Context(), node, "root", "chmod", "755", "/etc/slurm-taskprolog")
	}
	r := s.as(t, "alice", "srun --container-image="+tiny+" sh -c 'echo $FROM_PROLOG'")
	if r.Stdout != "yes\n" {
		t.Error(r)
	}
	s.idle(t)
}
