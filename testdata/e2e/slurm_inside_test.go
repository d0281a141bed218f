package e2e

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/berth-hpc/berth/testdata/cluster"
)

// inside runs a script in a container that has Slurm's commands.
func inside(image, args, script string) string {
	return "srun " + args + " --container-slurm --container-image=" + image + " sh -c '" + script + "'"
}

// TestSlurmInside calls Slurm's commands in containers: they run on the node,
// as the user, in the job, and what comes back is as if the caller had run
// them there.
func TestSlurmInside(t *testing.T) {
	s := newSite(t, withImages("mpi"))
	nested := "srun --overlap --mem=0 "
	for _, tc := range []struct {
		name, script string
		code         int
		want, says   string // regular expressions
	}{
		{name: "squeue", script: inside(tiny, "", `squeue -h -o "%i %u" -j $SLURM_JOB_ID`), want: `^\d+ alice\n$`},
		{name: "scontrol", script: inside(tiny, "", `scontrol show job $SLURM_JOB_ID | head -n1`), want: `^JobId=\d+`},
		{
			name: "a step on both nodes, in the same image", script: "salloc -N2 " + inside(tiny, "-N1 -n1", nested+`-N2 -n2 sh -c "test -e /bin/busybox && echo \$SLURMD_NODENAME" | sort`) + " 2>/dev/null",
			want: `^n\d\nn\d\n$`,
		},
		{name: "image of its own", script: inside(tiny, "", nested+"--container-image="+mpi+` sh -c "test -e /bin/busybox || echo other"`), want: `^other\n$`},
		{name: "exit code", script: inside(tiny, "", nested+`sh -c "exit 9"`), code: 9, want: `^$`},
		{name: "input and output", script: "echo hello | " + inside(tiny, "", nested+`cat | tr a-z A-Z`), want: `^HELLO\n$`},
		{name: "standard error", script: inside(tiny, "", `squeue -j nonsense`), code: 1, want: `^$`, says: `nvalid job id`},
		{name: "arguments", script: inside(tiny, "", nested+`printf "[%s]" "a b" "" "*"`), want: `^\[a b\]\[\]\[\*\]$`},
		{name: "its variables reach the tasks", script: inside(tiny, "", `X=y `+nested+`sh -c "echo \$X"`), want: `^y\n$`},
		{name: "its libraries do not reach the command", script: inside(tiny, "", `LD_PRELOAD=/nowhere.so LD_LIBRARY_PATH=/nowhere squeue -h -o %u -j $SLURM_JOB_ID`), want: `^alice\n$`, says: `^[^L]*$`},
		{name: "folder and umask", script: "mkdir -p sub; cd sub; " + inside(tiny, "--container-workdir=/home/alice/sub", `umask 077; `+nested+`-o out-%j true; ls -l out-* | cut -c1-10`), want: `^-rw-------\n$`},
		{name: "submit", script: inside(tiny, "", `cd; printf "#!/bin/sh\necho done\n" >in.sh; sbatch -W -o /shared/in.out in.sh; cat /shared/in.out`), want: `Submitted batch job \d+\ndone\n$`},
		{name: "cancel itself", script: inside(tiny, "", `scancel $SLURM_JOB_ID; sleep 60`), code: 143, want: `^$`},
		{name: "terminal", script: `script -qec "srun --pty --container-slurm --container-image=` + tiny + ` sh -c 'srun --overlap --pty tty && echo ok'" /dev/null </dev/null`, want: `/dev/pts/\d+\s+ok`},
		{name: "mpirun", script: "printf '#!/bin/sh\nmpirun -n 4 mpi-hello\n' >mpi.sh; sbatch -W -N2 --ntasks-per-node=2 -o /shared/mpirun.out --container-slurm --container-image=" + mpi + " mpi.sh >/dev/null; cat /shared/mpirun.out", want: `^(rank=\d size=4 host=n[12] [^\n]*\n){4}$`},
		{name: "no salloc", script: inside(tiny, "", `salloc true`), code: 127, want: `^$`},
		{name: "not asked for", script: "srun --container-image=" + tiny + " squeue", code: 2, want: `^$`},
		{name: "by variable", script: "BERTH_CONTAINER_SLURM=1 srun --container-image=" + tiny + " squeue -h -o %u", want: `^alice\n`},
		{name: "no helper", script: inside(tiny, "", `BERTH_SLURM_SOCKET=gone squeue`), code: 1, want: `^$`, says: `does not answer`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := s.as(t, "alice", tc.script)
			if r.Code != tc.code {
				t.Errorf("want exit code %d: %v", tc.code, r)
			}
			if !regexp.MustCompile(tc.want).MatchString(r.Stdout) {
				t.Errorf("want stdout %s: %v", tc.want, r)
			}
			if !regexp.MustCompile(tc.says).MatchString(r.Stderr) {
				t.Errorf("want stderr %s: %v", tc.says, r)
			}
		})
	}
	t.Run("killed by a signal", func(t *testing.T) { s.signalInside(t) })
	t.Run("somebody else", func(t *testing.T) { s.strangerInside(t) })
	s.idle(t)
	for _, node := range []string{"n1", "n2"} {
		if r := s.With(t).Run(t.Context(), node, "root", "pgrep", "-a", "berth-slurm"); r.Code != 1 {
			t.Errorf("a helper is left on %s: %v", node, r)
		}
	}
}

// signalInside ends an srun that was started in the container by a signal, and
// compares with one that was started on the node.
func (s *site) signalInside(t *testing.T) {
	script := `srun --overlap --mem=0 sleep 100 & sleep 2; kill -TERM $!; wait $!; echo $?`
	r := s.as(t, "alice", inside(tiny, "", script))
	bare := s.as(t, "alice", "srun sh -c '"+script+"'")
	if r.Code != 0 || r.Stdout != bare.Stdout || r.Stdout == "0\n" {
		t.Errorf("a signal to srun: %v; without a container: %v", r, bare)
	}
}

// strangerInside has bob call through the socket of alice's job, whose name he knows.
func (s *site) strangerInside(t *testing.T) {
	s.Spawn("alice", cluster.Command{Machine: "ctl", User: "alice", Args: []string{
		"sh", "-c", inside(tiny, "-w n1", `echo $BERTH_SLURM_SOCKET >/shared/socket.new; mv /shared/socket.new /shared/socket; sleep 60`),
	}})
	defer s.Stop("alice")
	name := s.socketName(t)
	call := `
import socket, array, os, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
s.settimeout(20)
s.connect("\0" + sys.argv[1])
m = os.memfd_create("call")
os.write(m, b"command=squeue\0arg=-h\0arg=-o%u\0cwd=/\0umask=22\0env=A=b\0")
try:
    s.sendmsg([b"call=1\0"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0, 1, 2, m]))])
    print("answer", s.recv(256))
except (BrokenPipeError, ConnectionResetError) as e:
    print("refused", e)
`
	for user, want := range map[string]string{"alice": `alice\n.*answer b'status=0`, "bob": `^(refused|answer b''\n)`} {
		r := s.With(t).Run(t.Context(), "n1", user, "python3", "-c", call, name)
		if !regexp.MustCompile(`(?s)` + want).MatchString(r.Stdout) {
			t.Errorf("%s calls through alice's socket; want %s: %v", user, want, r)
		}
	}
	s.MustRun(t.Context(), "ctl", "alice", "scancel", "-u", "alice")
}

func (s *site) socketName(t *testing.T) string {
	t.Helper()
	var name string
	until(t, time.Minute, "alice's job says its socket", func() bool {
		name = strings.TrimSpace(s.Run(t.Context(), "n1", "root", "cat", "/shared/socket").Stdout)
		return name != ""
	})
	return name
}
