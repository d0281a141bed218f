package e2e

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/berth-hpc/berth/testdata/cluster"
)

const mpi = registry + "/mpi:1"

// TestOpenMPI runs the image's own Open MPI over PMIx on three nodes. Ranks
// of a node must be able to read each other's memory: the kernel refuses that
// between user namespaces, so they must share one.
func TestOpenMPI(t *testing.T) {
	bothWays(t, func(t *testing.T, s *site) {
		t.Run("three nodes", func(t *testing.T) {
			r := s.hello(t, "srun --mpi=pmix -N3 --ntasks-per-node=2 --container-image="+mpi+" mpi-hello")
			checkRanks(t, r, 3)
			if r.Code != 0 || times(" btl=cma$", r.Stdout) != 6 {
				t.Error(r)
			}
		})
		t.Run("memory is really read", func(t *testing.T) { s.countReads(t) })
		t.Run("two steps share memory", func(t *testing.T) {
			r := s.as(t, "alice", "salloc -w n1 -n2 bash -c 'for i in 1 2; do srun --overlap -n1 --container-image="+mpi+
				" readlink /proc/self/ns/user & done; wait' 2>/dev/null")
			if lines := strings.Fields(r.Stdout); len(lines) != 2 || lines[0] != lines[1] {
				t.Errorf("steps of one job on one node are in different user namespaces: %v", r)
			}
		})
		s.idle(t)
	}, withImages("mpi"))
}

// hello runs a script that starts ranks, again when one crashed: Debian's Open
// MPI 4.1.4 does so in about one of fifty starts over several nodes, without a
// container too (2 of 100 bare ones here).
func (s *site) hello(t *testing.T, script string) cluster.Result {
	for attempt := 1; ; attempt++ {
		r := s.as(t, "alice", script)
		if attempt == 3 || !strings.Contains(r.Stderr, "Segmentation fault") {
			return r
		}
		t.Logf("attempt %d: %v", attempt, r)
	}
}

// checkRanks looks at what two ranks on each of so many nodes said.
func checkRanks(t *testing.T, r cluster.Result, nodes int) {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(r.Stdout), "\n")
	if len(lines) != 2*nodes {
		t.Fatalf("want %d ranks: %v", 2*nodes, r)
	}
	for i, line := range lines {
		want := fmt.Sprintf("rank=%d size=%d host=n%d local=%d/2 cma=yes ", i, 2*nodes, 1+i/2, i%2)
		if !strings.HasPrefix(line, want) {
			t.Errorf("rank %d: want %s, got %s", i, want, line)
		}
	}
}

// countReads looks at a running pair of ranks with strace: large messages
// must go by process_vm_readv, not through a file in /dev/shm.
func (s *site) countReads(t *testing.T) {
	s.Spawn("pingpong", cluster.Command{Machine: "ctl", User: "alice", Args: []string{
		"srun", "-w", "n1", "-n2", "--mpi=pmix", "--container-image=" + mpi, "mpi-pingpong", "100000",
	}})
	defer s.Stop("pingpong")
	r := s.With(t).Run(t.Context(), "n1", "root", "sh", "-c", `
		for i in $(seq 300); do pid=$(pgrep -n mpi-pingpong) && break; sleep 0.1; done
		sleep 1
		timeout -s INT 6 strace -f -c -e trace=process_vm_readv,process_vm_writev -p $pid 2>&1`)
	t.Log(r.Stdout)
	s.MustRun(t.Context(), "ctl", "alice", "sh", "-c", "scancel -u alice")
	if !regexp.MustCompile(`process_vm_(readv|writev)`).MatchString(r.Stdout) {
		t.Errorf("no memory was read: %v", r)
	}
}

const mpich = registry + "/mpich:1"

// TestPreflight starts MPI programs in ways in which they can and cannot learn
// their rank: who cannot hears so once, before it starts.
func TestPreflight(t *testing.T) {
	bothWays(t, func(t *testing.T, s *site) {
		for _, tc := range []struct {
			name, script string
			together     int // how many ranks are one program
			warned       string
		}{
			{
				"Open MPI without", "srun --mpi=none -n2 --container-image=" + mpi + " mpi-hello", 0,
				`(?m)^berth: warning: the image's Open MPI .* from --mpi=none, .* each of the 2 tasks .* start it by srun --mpi=pmix$`,
			},
			{"over nodes", "srun --mpi=none -N2 -n4 --container-image=" + mpi + " mpi-hello", 0, "each of the 4 tasks .* srun --mpi=pmix"},
			{"Open MPI by PMI2", "srun --mpi=pmi2 -n2 --container-image=" + mpi + " mpi-hello", 0, `from --mpi=pmi2,.* srun --mpi=pmix`},
			{"Open MPI by PMIx", "srun --mpi=pmix -n2 --container-image=" + mpi + " mpi-hello", 2, ""},
			{"MPICH without", "srun --mpi=none -n2 --container-image=" + mpich + " mpi-hello", 0, `the image's MPICH .* from --mpi=none,.* srun --mpi=pmi2`},
			{"MPICH by PMI2", "srun --mpi=pmi2 -n2 --container-image=" + mpich + " mpi-hello", 2, ""},
			{"in a script", "srun --mpi=none -n2 --container-image=" + mpi + " sh -c true", 0, `if this step uses the image's Open MPI: .*; BERTH_MPI_CHECK=no silences this`},
			{"no MPI program", "srun --mpi=none -n2 --container-image=" + mpi + " true", 0, ""},
			{"one task", "srun --mpi=none -n1 --container-image=" + mpich + " mpi-hello", 0, ""},
			{"silenced", "BERTH_MPI_CHECK=no srun --mpi=none -n2 --container-image=" + mpich + " mpi-hello", 0, ""},
			{"no MPI", "srun --mpi=none -n2 --container-image=" + tiny + " true", 0, ""},
		} {
			t.Run(tc.name, func(t *testing.T) {
				r := s.as(t, "alice", tc.script)
				if strings.Count(r.Stdout, "size=2 ") != tc.together {
					t.Errorf("want %d ranks of one program: %v", tc.together, r)
				}
				warnings := strings.Count(r.Stderr, "cannot learn its rank")
				if (tc.warned != "") != (warnings == 1) || !regexp.MustCompile(tc.warned).MatchString(r.Stderr) {
					t.Errorf("want one warning %q: %v", tc.warned, r)
				}
			})
		}
		s.idle(t)
	}, withImages("mpi", "mpich"))
}
