package e2e

import (
	"strings"
	"testing"

	"github.com/berth-hpc/berth/testdata/cluster"
)

// startDaemon is a task that leaves a process of a session of its own behind, a
// grandchild of nobody's, and says so when that runs.
const startDaemon = `rm -f /shared/same/pid
/shared/probe daemon sh -c "echo \$\$ >/shared/same/pid; exec sleep 7654"
until [ -s /shared/same/pid ]; do :; done
kill -0 $(cat /shared/same/pid) && echo started`

// TestDaemonOfAJob: Slurm, where it finds processes by their parents
// (proctrack/linuxproc), overlooks a daemon, which then outlives its job; bare
// ones do. In a container it ends with the job, before which it keeps
// its image like any task; nothing of ours stays, and the node takes jobs.
func TestDaemonOfAJob(t *testing.T) {
	bothWays(t, func(t *testing.T, s *site) {
		s.installProbe(t)
		s.install(t, "daemon", "#!/bin/sh\n"+startDaemon+"\n")
		s.MustRun(t.Context(), "ctl", "root", "install", "-d", "-m", "1777", "/shared/same")
		check(t, s.as(t, "alice", "srun -w n1 /shared/daemon"), 0, "^started\n$", "")
		s.idle(t)
		if pids := s.daemons(t); len(pids) != 1 {
			t.Fatalf("a bare job's daemons: %q: the test tests nothing", pids)
		}
		s.MustRun(t.Context(), "n1", "root", "pkill", "-f", "[s]leep 7654")
		check(t, s.as(t, "alice", "srun -w n1 --container-image="+tiny+" true"), 0, "", "")
		s.idle(t)
		before := s.residueOf(t, "n1")
		for _, options := range []string{"", "--container-writable", "--container-remap-root", "--container-mounts=/tmp:/mnt"} {
			t.Run(options, func(t *testing.T) {
				check(t, s.as(t, "alice", "srun -w n1 --container-image="+tiny+" "+options+" /shared/daemon"), 0, "^started\n$", "")
				s.idle(t)
				if more := s.settled(t, "n1", before, nil); len(more) > 0 {
					t.Errorf("left on n1:\n%s", strings.Join(more, "\n"))
				}
				check(t, s.as(t, "bob", "srun -w n1 --container-image="+tiny+" echo next"), 0, "^next\n$", "")
				s.idle(t)
				if r := s.With(t).Run(t.Context(), "n1", "root", "/opt/berth/bin/berth", "rm", tiny); r.Code != 0 {
					t.Errorf("the image cannot be removed: %v", r)
				}
			})
		}
	})
}

// daemons are the numbers of startDaemon's on n1.
func (s *site) daemons(t *testing.T) []string {
	t.Helper()
	return strings.Fields(s.With(t).Run(t.Context(), "n1", "root", "pgrep", "-f", "[s]leep 7654").Stdout)
}

// TestPinsAreRoots: nobody but root opens what keeps a job's namespaces and
// the node's image mounts, or looks into the folders of another's job.
func TestPinsAreRoots(t *testing.T) {
	s := newSite(t)
	id := s.inside(t, "-w n1 --container-image="+tiny)
	for _, user := range []string{"bob", "alice"} { // the owner neither
		for name, script := range map[string]string{
			"mounts":         "cat /run/berth/private/mounts.ns",
			"enter":          "nsenter --mount=/run/berth/private/mounts.ns true",
			"enter in a new": "unshare -Ur nsenter --mount=/run/berth/private/mounts.ns true",
			"its job":        "ls /run/berth/jobs",
			"its leases":     "ls /run/berth/jobs/" + id + "/leases",
			"store's locks":  "cat /run/berth/mounts.lock",
			"by root's":      "ls /proc/1/root/run/berth/jobs",
		} {
			r := s.With(t).Do(t.Context(), cluster.Command{Machine: "n1", User: user, Args: []string{"sh", "-c", script}})
			if r.Code == 0 || r.Stdout != "" || !strings.Contains(r.Stderr, "ermission denied") && !strings.Contains(r.Stderr, "not permitted") {
				t.Errorf("%s, %s: %v", user, name, r)
			}
		}
	}
	// Of tasks' namespaces another user opens none; that bob's own can be opened
	// shows that the attack is one.
	script := `for p in $(pgrep -u alice); do for n in user mnt; do exec 3</proc/$p/ns/$n && echo opened; done; done; exec 3</proc/self/ns/mnt && echo own`
	r := s.With(t).Run(t.Context(), "n1", "bob", "bash", "-c", script)
	if r.Stdout != "own\n" || !strings.Contains(r.Stderr, "ermission denied") {
		t.Errorf("another's namespaces: %v", r)
	}
	check(t, s.as(t, "alice", "scancel "+id), 0, "", "")
	s.idle(t)
}
