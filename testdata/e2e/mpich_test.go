package e2e

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/berth-hpc/berth/testdata/cluster"
)

// TestMPICH runs the image's own MPICH over PMI2. Debian's 4.0.2 does not come
// out of MPI_Finalize over several nodes without InfiniBand, without a
// container either (docs/containers.md): with progress.c, which does away with
// the cause and nothing else, it does, in both.
func TestMPICH(t *testing.T) {
	bothWays(t, func(t *testing.T, s *site) {
		s.buildProgress(t)
		s.copyMPICH(t)
		const preload = "LD_PRELOAD=/shared/progress.so "
		const inside = "--container-image=" + mpich + " env %s mpi-hello"
		const bare = "env LD_LIBRARY_PATH=/shared/mpich %s /shared/mpich/mpi-hello"
		for range 3 {
			for _, how := range []string{inside, bare} {
				if r := s.threeNodes(t, how, preload, time.Minute); r.Code != 0 {
					t.Errorf("%s: %v", how, r)
				}
			}
		}
		in, out := s.staysInFinalize(t, inside), s.staysInFinalize(t, bare)
		t.Logf("without progress.c, it does not end in a container: %v; bare: %v", in, out)
		if in != out {
			t.Error("a container makes a difference")
		}
		t.Run("memory is shared", func(t *testing.T) { s.sharesMemory(t) })
		s.idle(t)
	}, withImages("mpich"), withConf("KillWait=1"))
}

// threeNodes runs six ranks, and looks at what rank 0 has gathered from them:
// each knows its place and has read its neighbour's memory. A run that is not
// over so long after that is ended: then the code is 124.
func (s *site) threeNodes(t *testing.T, how, environment string, finalize time.Duration) cluster.Result {
	t.Helper()
	r := s.as(t, "alice", fmt.Sprintf(`srun --mpi=pmi2 -N3 --ntasks-per-node=2 %s >out 2>err &
		for i in $(seq 450); do [ "$(grep -c ^rank= out)" != 6 ] && kill -0 $! 2>/dev/null || break; sleep 0.1; done
		timeout %d tail -s 0.1 --pid=$! -f /dev/null; late=$?
		kill $! 2>/dev/null; wait $!; code=$?
		cat out; cat err >&2; [ $late = 0 ] && exit $code; exit $late`, fmt.Sprintf(how, environment), int(finalize.Seconds())))
	checkRanks(t, r, 3)
	return r
}

// staysInFinalize says whether one of three runs does not end after its ranks
// said what they had to say.
func (s *site) staysInFinalize(t *testing.T, how string) bool {
	t.Helper()
	for range 3 {
		if s.threeNodes(t, how, "", 15*time.Second).Code == 124 {
			return true
		}
	}
	return false
}

func (s *site) buildProgress(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("gcc"); err != nil {
		t.Skip("needs gcc")
	}
	out := filepath.Join(s.Dir, "shared", "progress.so")
	if text, err := exec.Command("gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", out, "testdata/progress.c").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
}

// copyMPICH takes the program and its libraries out of the image, but for the
// C library's, to be run without a container.
func (s *site) copyMPICH(t *testing.T) {
	t.Helper()
	r := s.as(t, "alice", `mkdir /shared/mpich && srun -w n1 --container-image=`+mpich+` sh -c '
		cp -L $(command -v mpi-hello) $(ldd $(command -v mpi-hello) | sed -n "s,.* => \(/[^ ]*\) .*,\1,p" | grep -Ev "/lib(c|m)\.so") /shared/mpich'`)
	if r.Code != 0 {
		t.Fatal(r)
	}
}

// thousandCalls is a line of strace -c: messages that went through a socket
// would take as many calls; a few are of MPICH's own threads.
const thousandCalls = `^\s*[\d.]+\s+[\d.]+\s+\d+\s+\d{4,}\s+(\d+\s+)?(write|send)\w*$`

// sharesMemory looks at a running pair of ranks: both have mapped one segment,
// and their messages go through it, or from memory to memory: which of the two
// depends on whether the small ones are over by then, which come first.
func (s *site) sharesMemory(t *testing.T) {
	s.Spawn("pingpong", cluster.Command{Machine: "ctl", User: "alice", Args: []string{
		"srun", "-w", "n1", "-n2", "--mpi=pmi2", "--container-image=" + mpich, "mpi-pingpong", "1000000",
	}})
	defer s.Stop("pingpong")
	r := s.With(t).Run(t.Context(), "n1", "root", "bash", "-c", `
		mapped() { perl -lane 'print "$F[3] $F[4]" if $F[1] eq "rw-s"' "/proc/$1/maps" | sort -u; }
		for i in $(seq 300); do
			set -- $(pgrep -x mpi-pingpong)
			[ $# = 2 ] && shared=$(comm -12 <(mapped $1) <(mapped $2)) && [ "$shared" ] && break
			sleep 0.1
		done
		echo "shared: $shared"
		timeout -s INT 3 strace -f -c -e trace=write,writev,sendto,sendmsg,process_vm_readv,process_vm_writev -p $1 2>&1`)
	s.MustRun(t.Context(), "ctl", "alice", "scancel", "-u", "alice")
	if times(`^shared: \S+:\S+ \d+$`, r.Stdout) != 1 || times(`attached`, r.Stdout) == 0 || times(thousandCalls, r.Stdout) != 0 {
		t.Errorf("messages do not go through shared memory: %v", r)
	}
}
