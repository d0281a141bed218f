package e2e

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/berth-hpc/berth/testdata/deploy"
)

// A breakage is something wrong with n1 that its admin has to mend. The image
// is not in the store of n1 when it breaks, but for those that keep it.
type breakage struct {
	name          string
	breaks, mends string // shell scripts of root on n1
	keep          bool
	cause, fix    string // what a user of n1 reads; "" if the job runs all the same
}

const (
	create   = "/opt/berth/libexec/berth/berth-create"
	emptyDir = "mkdir -p /tmp/empty && mount --bind /tmp/empty "
	store    = "/var/lib/berth"
	smallDir = "rm -rf /var/lib/berth/* && mount -t tmpfs -o mode=0755,"
	noRunDir = "umount /run/berth/private/mounts.ns /run/berth && rm -rf /run/berth"
	rootfs   = "/var/lib/berth/images/sha256/*/rootfs.sqfs"
)

// spoil flips bits in the first block of data, so that it cannot be unpacked;
// \x28\xb5\x2f\xfd is how zstd's frames begin.
const spoil = `perl -e 'open(my $f, "+<:raw", glob "` + rootfs + `") or die; local $/; my $d = <$f>; my $i = index($d, "\x28\xb5\x2f\xfd", 96); ` +
	`die if $i < 0; seek($f, $i, 0); print $f "\xd7"'`

var breakages = []breakage{
	{
		name: "broken configuration", breaks: "cp -p /etc/berth/berth.toml /tmp/good.toml && echo 'x = [' >/etc/berth/berth.toml",
		mends: "cp /tmp/good.toml /etc/berth/berth.toml",
		cause: `read /etc/berth/berth.toml: line 1: `, fix: `correct the file`,
	},
	{
		name: "unknown key", breaks: "echo '[node]\nnonsense = 1' >>/etc/berth/berth.toml", mends: "cp /tmp/good.toml /etc/berth/berth.toml",
		cause: `.*/etc/berth/berth.toml.*nonsense`, fix: `.`,
	},
	{
		name: "helper missing", breaks: emptyDir + "/opt/berth/libexec/berth", mends: "umount /opt/berth/libexec/berth",
		cause: `cannot start ` + create + `: No such file or directory`, fix: `this is for the cluster's admin`,
	},
	{
		name: "helper not executable", breaks: "mount --bind /dev/null " + create, mends: "umount " + create,
		cause: `cannot start ` + create + `: Permission denied`, fix: `this is for the cluster's admin`,
	},
	{
		name: "helper killed", breaks: `printf '#!/bin/sh\nkill -9 $$\n' >/tmp/killed && chmod 755 /tmp/killed && mount --bind /tmp/killed ` + create,
		mends: "umount " + create,
		// which of both depends on the moment
		cause: `the container helper (ended before the container was ready|does not take the request: Broken pipe)`,
		fix:   `(submit the job again|this is for the cluster's admin)`,
	},
	{
		name: "berth missing", breaks: emptyDir + "/opt/berth/bin", mends: "umount /opt/berth/bin",
		cause: `start the preparation of the image: .*/bin/berth: no such file`, fix: `(ask|tell) your administrator`,
	},
	{
		name: "account missing", breaks: "cp -p /etc/passwd /tmp/passwd && sed -i /^berth:/d /etc/passwd", mends: "cat /tmp/passwd >/etc/passwd",
		cause: `use the account berth: user: unknown user berth`, fix: `the administrator creates it on every node: useradd`,
	},
	{name: "run folder missing", breaks: noRunDir, mends: "true"},
	{
		name: "run folder cannot be made", breaks: noRunDir + " && echo >/run/berth", mends: "rm /run/berth",
		cause: `start the preparation of the image: .*/run/berth`, fix: `(ask|tell) your administrator`,
	},

	{
		name: "disk full", breaks: smallDir + "size=600k tmpfs " + store, mends: "umount " + store,
		cause: `make room in /var/lib/berth: .* are needed`, fix: `remove images that nobody needs`,
	},
	{
		name: "disk full a little later", breaks: smallDir + "size=1000k tmpfs " + store, mends: "umount " + store,
		cause: `(pull .*no space left on device|make room in /var/lib/berth: .* are needed)`, fix: `(make room on the disk that holds the store|remove images that nobody needs)`,
	},
	{
		name: "out of inodes", breaks: smallDir + "size=60m,nr_inodes=8 tmpfs " + store, mends: "umount " + store,
		cause: `.*no space left on device`, fix: `make room on the disk that holds the store`,
	},
	{
		name: "disk read-only", breaks: smallDir + "ro tmpfs " + store, mends: "umount " + store,
		cause: `open store /var/lib/berth: .*read-only file system`, fix: `look at the store's folder`,
	},
	{
		name: "disk turned read-only", keep: true, breaks: "mount --bind /var/lib/berth /var/lib/berth && mount -o remount,bind,ro /var/lib/berth",
		mends: "umount " + store,
	},

	{name: "image is nonsense", keep: true, breaks: "echo nonsense | dd of=$(echo " + rootfs + ") conv=notrunc status=none", mends: "true"},
	{name: "image is empty", keep: true, breaks: ": >$(echo " + rootfs + ")", mends: "true"},
}

// TestBrokenNode: what only an admin can mend fails the user's job with words
// for both of them, drains nothing, and is over when it is mended. What Berth
// can mend (an image that was damaged on disk) no user notices.
func TestBrokenNode(t *testing.T) {
	s := newSite(t, withConf("KillWait=5"))
	for _, b := range breakages {
		t.Run(b.name, func(t *testing.T) { s.testBreakage(t, b) })
	}
	t.Run("damaged data", s.testDamagedData)
	t.Run("helper hangs", s.testHelperHangs)
	t.Run("daemons restart", s.testDaemonsRestart)
	t.Run("slurmstepd killed", s.testStepdKilled)
	t.Run("reboot", s.testReboot)
	t.Run("steps", s.testSteps)
	t.Run("no kill", s.testNoKill)
	t.Run("plugin missing", func(t *testing.T) { s.testPlugin(t, emptyDir+"/opt/berth/lib/berth", "/opt/berth/lib/berth") })
	t.Run("plugin of another release", func(t *testing.T) {
		const plugin = "/opt/berth/lib/berth/spank_berth.so"
		s.buildForeignPlugin(t)
		s.testPlugin(t, "mount --bind /shared/foreign.so "+plugin, plugin)
	})
}

// n1 runs a shell script as root on n1.
func (s *site) n1(t *testing.T, script string) string {
	t.Helper()
	return s.With(t).MustRun(t.Context(), "n1", "root", "bash", "-c", script)
}

const onN1 = "timeout 100 srun -N1 -n2 -w n1 --container-image=" + tiny + " "

// works fails the test unless n1 runs containers and is clean afterwards.
func (s *site) works(t *testing.T) {
	t.Helper()
	if r := s.as(t, "alice", onN1+"echo ran"); r.Code != 0 || times(`^ran$`, r.Stdout) != 2 {
		t.Errorf("the node does not work: %v", r)
	}
	s.clean(t)
}

func (s *site) testBreakage(t *testing.T, b breakage) {
	if b.keep {
		s.works(t)
	} else {
		s.forget(t)
	}
	s.n1(t, b.breaks)
	r := s.as(t, "alice", onN1+"echo ran")
	batch := s.submit(t, "-w n1 -o /shared/%j.out --container-image="+tiny+" --wrap 'echo ran'")
	state, code := s.ended(t, batch, 30*time.Second)
	s.idle(t)
	s.n1(t, b.mends)
	if b.cause == "" {
		if r.Code != 0 || times(`^ran$`, r.Stdout) != 2 || state != "COMPLETED" {
			t.Errorf("batch job %s, %v", state, r)
		}
	} else {
		failure{cause: "error: " + b.cause, fix: b.fix}.check(t, r, 1, false)
		if state != "FAILED" || code == "0:0" {
			t.Errorf("batch job %s, exit code %s", state, code)
		}
	}
	s.works(t)
}

// testDamagedData: a byte of the data area is another. Nobody hashes an image
// at each start, so the job that runs into it gets an error; the kernel logs
// it, and the next job's image is verified, and pulled again.
func (s *site) testDamagedData(t *testing.T) {
	s.works(t)
	s.n1(t, spoil)
	r := s.as(t, "alice", onN1+"cat /bin/busybox >/dev/null && echo ran")
	if r.Code == 0 || strings.Contains(r.Stdout, "ran") {
		t.Errorf("the damage is not seen: %v", r)
	}
	s.idle(t)
	s.works(t)
}

// testHelperHangs: the step waits, and the user can end it. The process that
// hangs is the admin's to look at.
func (s *site) testHelperHangs(t *testing.T) {
	s.n1(t, `printf '#!/bin/sh\nexec sleep 987\n' >/tmp/hangs && chmod 755 /tmp/hangs && mount --bind /tmp/hangs `+create)
	id := s.submit(t, "-w n1 -n2 -o /dev/null --container-image="+tiny+" --wrap 'echo ran'")
	until(t, 20*time.Second, "the task waits", func() bool {
		return s.With(t).Run(t.Context(), "n1", "root", "pgrep", "-x", "berth-wait").Code == 0
	})
	s.With(t).MustRun(t.Context(), "ctl", "alice", "scancel", id)
	if state, _ := s.ended(t, id, 15*time.Second); state != "CANCELLED" {
		t.Errorf("state %s", state)
	}
	s.n1(t, "umount "+create+" && pkill -9 -xf 'sleep 987'")
	s.works(t)
}

// container submits a batch job to n1 that lasts until /shared/go exists, and
// waits until it is in its container.
func (s *site) container(t *testing.T) string {
	t.Helper()
	s.With(t).MustRun(t.Context(), "ctl", "root", "rm", "-f", "/shared/go", "/shared/up")
	id := s.submit(t, "--no-requeue -w n1 -n2 -o /shared/%j.out --container-image="+tiny+
		" --wrap 'touch /shared/up; until [ -e /shared/go ]; do sleep 0.2; done; cat /etc/os-release; echo survived'")
	s.With(t).MustRun(t.Context(), "ctl", "root", "timeout", "100", "sh", "-c", "until [ -e /shared/up ]; do sleep 0.1; done")
	return id
}

func (s *site) goOn(t *testing.T) {
	t.Helper()
	s.With(t).MustRun(t.Context(), "ctl", "root", "touch", "/shared/go")
}

// restart ends a daemon of Slurm's and starts it again.
const restart = `kill $(pgrep -x $0) && while pgrep -x $0 >/dev/null; do sleep 0.1; done; exec $0 >/dev/null 2>&1`

func (s *site) testDaemonsRestart(t *testing.T) {
	id := s.container(t)
	s.With(t).MustRun(t.Context(), "n1", "root", "timeout", "100", "bash", "-c", restart, "slurmd")
	s.With(t).MustRun(t.Context(), "ctl", "root", "timeout", "100", "bash", "-c", restart, "slurmctld")
	s.goOn(t)
	if state, _ := s.ended(t, id, 60*time.Second); state != "COMPLETED" {
		t.Errorf("state %s", state)
	}
	if out := s.With(t).MustRun(t.Context(), "ctl", "root", "cat", "/shared/"+id+".out"); !strings.Contains(out, "ID=tiny") || !strings.Contains(out, "survived") {
		t.Errorf("the container's output is %q", out)
	}
	s.works(t)
}

// testStepdKilled: Slurm then knows of no task and leaves those that run, with
// proctrack/linuxproc at least, as it does without Berth. The job's end cleans up.
func (s *site) testStepdKilled(t *testing.T) {
	id := s.container(t)
	s.n1(t, "pkill -9 slurmstepd")
	s.With(t).MustRun(t.Context(), "ctl", "alice", "scancel", id)
	if state, _ := s.ended(t, id, 30*time.Second); state != "CANCELLED" {
		t.Errorf("state %s", state)
	}
	s.goOn(t) // the orphan ends
	s.works(t)
}

// testReboot takes away what a reboot does: all processes, and what is below
// /run. It leaves what lies on disk: half an image, and slurmd's spool.
func (s *site) testReboot(t *testing.T) {
	id := s.container(t)
	s.n1(t, `kill -9 $(pgrep -x slurmd); pkill -9 slurmstepd; pkill -9 -u alice
		umount -l /run/berth/private/mounts.ns; umount -l /run/berth; rm -rf /run/berth /run/slurm*
		name=$(basename /var/lib/berth/images/sha256/*); rm -rf /var/lib/berth/images/sha256/$name
		mkdir -p /var/lib/berth/{tmp,images/.new}/$name.123 && touch /var/lib/berth/{tmp,images/.new}/$name.123/half`)
	// slurmctld would, after SlurmdTimeout. The node comes back when slurmd does.
	s.With(t).MustRun(t.Context(), "ctl", "root", "scontrol", "update", "nodename=n1", "state=down", "reason=reboot")
	s.n1(t, "slurmd >/dev/null 2>&1")
	if state, _ := s.ended(t, id, 30*time.Second); state != "NODE_FAIL" {
		t.Errorf("state %s", state)
	}
	s.works(t)
}

// testSteps: steps that fail, and that end before others of their job.
func (s *site) testSteps(t *testing.T) {
	const image = " --container-image=" + tiny + " "
	for _, tc := range []struct {
		name, script, stdout string
		ok                   bool
	}{
		{"kill on bad exit", "rm -f /shared/in.*; timeout 100 srun -K -w n1,n2 -N2 -n4" + image +
			// Slurm forgets a node whose step begins after the kill, without Berth, too.
			"sh -c 'touch /shared/in.$SLURM_PROCID; until [ -e /shared/in.3 ]; do sleep 0.1; done; test $SLURM_PROCID = 0 && exit 3; sleep 100'", "", false},
		{"a task fails", "timeout 100 srun -w n1,n2 -N2 -n4" + image + "sh -c 'test $SLURM_PROCID = 0 && exit 3; echo others'", "others\nothers\nothers\n", false},
		{
			"a step ends before another",
			"timeout 100 salloc -n2 -w n1 sh -c \"srun -n1 --overlap" + image + "sh -c 'until [ -e /shared/second ]; do sleep 0.1; done; grep ^ID /etc/os-release' & " +
				"srun -n1 --overlap" + image + "grep ^ID /etc/os-release; touch /shared/second; wait \\$!\" 2>/dev/null", "ID=tiny\nID=tiny\n", true,
		},
		{
			"a step fails before another",
			"timeout 100 salloc -n2 -w n1 sh -c \"srun -n1 --overlap" + image + "sh -c 'until [ -e /shared/third ]; do sleep 0.1; done; grep ^ID /etc/os-release' & " +
				"srun -n1 --overlap --container-workdir=/nowhere" + image + "true; touch /shared/third; wait \\$!\" 2>/dev/null", "ID=tiny\n", true,
		},
		{"het component", "timeout 100 srun -w n1 -n2" + image + "echo first : -w n2 -n1 sh -c 'exit 4'", "first\nfirst\n", false},
		{"het component that cannot start", "timeout 100 srun -w n1 -n2" + image + "echo first : -w n2 -n1 no-such-command", "first\nfirst\n", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := s.as(t, "alice", tc.script)
			if (r.Code == 0) != tc.ok || r.Code == 124 || r.Stdout != tc.stdout {
				t.Errorf("want %q, success %v: %v", tc.stdout, tc.ok, r)
			}
			s.clean(t)
		})
	}
}

// testNoKill: a job with --no-kill goes on in its other node's container.
func (s *site) testNoKill(t *testing.T) {
	s.With(t).MustRun(t.Context(), "ctl", "root", "rm", "-f", "/shared/go", "/shared/up")
	id := s.submit(t, "--no-kill -N2 -w n1,n2 -o /shared/%j.out --container-image="+tiny+
		" --wrap 'touch /shared/up; until [ -e /shared/go ]; do sleep 0.2; done; grep ^ID /etc/os-release'")
	s.With(t).MustRun(t.Context(), "ctl", "root", "timeout", "100", "sh", "-c", "until [ -e /shared/up ]; do sleep 0.1; done")
	s.With(t).MustRun(t.Context(), "ctl", "root", "scontrol", "update", "nodename=n2", "state=down", "reason=test")
	s.goOn(t)
	state, _ := s.ended(t, id, 30*time.Second)
	out := s.With(t).MustRun(t.Context(), "ctl", "root", "cat", "/shared/"+id+".out")
	if state != "COMPLETED" || !strings.Contains(out, "ID=tiny\n") {
		t.Errorf("state %s, output %q", state, out)
	}
	s.With(t).MustRun(t.Context(), "ctl", "root", "scontrol", "update", "nodename=n2", "state=resume")
	s.clean(t)
}

// testPluginMissing shows what an admin chooses with plugstack.conf: where the
// plugin cannot be loaded, "required" drains the node at the next job, and
// "optional" lets every job run, also those with an image, on the host itself.
func (s *site) testPlugin(t *testing.T, spoil, mounted string) {
	s.setPlugstack(t, "optional")
	s.n1(t, spoil)
	if r := s.as(t, "alice", "timeout 100 srun -w n1 sh -c 'test -e /etc/slurm && echo host'"); r.Stdout != "host\n" {
		t.Errorf("optional, a job without an image: %v", r)
	}
	if r := s.as(t, "alice", onN1+"sh -c 'test -e /etc/slurm && echo host'"); times("^host$", r.Stdout) != 2 {
		t.Errorf("optional, a job with an image: %v", r)
	}
	s.idle(t)
	s.setPlugstack(t, "required")
	if r := s.as(t, "alice", onN1+"echo ran"); r.Code == 0 || strings.Contains(r.Stdout, "ran") {
		t.Errorf("required: %v", r)
	}
	until(t, 20*time.Second, "the node is drained", func() bool {
		return strings.HasPrefix(s.With(t).NodeState("n1"), "drain")
	})
	s.n1(t, "umount "+mounted)
	s.With(t).MustRun(t.Context(), "ctl", "root", "scontrol", "update", "nodename=n1", "state=resume")
	s.works(t)
}

// buildForeignPlugin builds the plugin against headers of a release that does
// not exist, and leaves it at /shared/foreign.so.
func (s *site) buildForeignPlugin(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	script := `set -e
		mkdir include && cp -r /usr/include/slurm include/
		sed -i 's/^#define SLURM_VERSION_NUMBER .*/#define SLURM_VERSION_NUMBER 0x630101/' include/slurm/slurm_version.h
		make -s -C "$1/spank" SLURM_INCLUDE="$PWD/include" BUILD="$PWD/build"
		cp build/lib/berth/spank_berth.so "$2/shared/foreign.so"`
	cmd := exec.CommandContext(t.Context(), "sh", "-c", script, "sh", deploy.Root(), s.Dir)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// setPlugstack says on all machines how Slurm takes a plugin that fails.
func (s *site) setPlugstack(t *testing.T, how string) {
	t.Helper()
	path := s.Dir + "/slurm/plugstack.conf"
	editFile(t, path, func(text string) string {
		_, rest, _ := strings.Cut(text, " ")
		return how + " " + rest
	})
}

// editFile changes a file in place: machines have the same inode.
func editFile(t *testing.T, path string, edit func(string) string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(edit(string(text))), 0o644); err != nil {
		t.Fatal(err)
	}
}
