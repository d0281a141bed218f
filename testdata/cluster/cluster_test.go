package cluster

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"testing"
	"time"
)

// TestJobs runs the everyday commands of ordinary users over one cluster.
func TestJobs(t *testing.T) {
	c := Up(t, Options{})
	for _, test := range []struct {
		name, user, script string
		want               string // lines of standard output, sorted
	}{
		{"srun", "alice", "srun -N3 hostname", "n1\nn2\nn3"},
		{"uid of alice", "alice", "srun id -u", "2001"},
		{"groups of alice", "alice", "srun id -G", "2001 3001 3002"},
		{"uid of bob", "bob", "srun id -u", "2002"},
		{"groups of bob", "bob", "srun id -G", "2002 3001"},
		{"sbatch", "alice", `sbatch -Q --wait -N2 -o out --wrap "srun hostname"; cat out`, "n1\nn2"},
		{"array", "bob", `sbatch -Q --wait -a 1-4 -o out.%a --wrap 'echo $SLURM_ARRAY_TASK_ID'; cat out.*`, "1\n2\n3\n4"},
		{"salloc", "carol", "salloc -Q -N2 srun hostname", "n1\nn2"},
		{"overcommitted CPUs", "alice", "srun -N1 -n8 sh -c 'echo $SLURM_LOCALID'", "0\n1\n2\n3\n4\n5\n6\n7"},
		{"terminal", "alice", `script -qec "srun --pty tty" /dev/null </dev/null | grep -o '/dev/pts/[0-9]*'`, "/dev/pts/0"},
		{"exit code", "alice", "srun sh -c 'exit 7' 2>/dev/null; echo $?", "7"},
		{"MPI", "alice", "srun -N3 --mpi=pmix sh -c 'test -n \"$PMIX_RANK\" && echo $PMIX_RANK'", "0\n1\n2"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := c.With(t).MustRun(t.Context(), "ctl", test.user, "sh", "-c", test.script)
			if got := sortLines(got); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
	c.WaitIdle()
}

func sortLines(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	sort.Strings(lines)
	return strings.Join(lines, "\n")
}

func TestScancelFreesTheNode(t *testing.T) {
	c := Up(t, Options{Nodes: 1})
	id := strings.TrimSpace(c.MustRun(t.Context(), "ctl", "alice", "sbatch", "--parsable", "--wrap", "sleep 1000"))
	await(t, func() bool { return c.NodeState("n1") == "mixed" })
	if r := c.Run(t.Context(), "ctl", "bob", "scancel", id); r.Code == 0 {
		t.Error("bob may cancel a job of alice")
	}
	c.MustRun(t.Context(), "ctl", "alice", "scancel", id)
	c.WaitIdle()
	if r := c.Run(t.Context(), "n1", "root", "pgrep", "-u", "alice"); r.Code == 0 {
		t.Errorf("processes of the job are left: %v", r)
	}
}

// await polls cond, at most for half a minute.
func await(t *testing.T, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	end := time.After(30 * time.Second)
	for !cond() {
		select {
		case <-tick.C:
		case <-end:
			t.Fatal("not so within 30 s")
		}
	}
}

// TestMachinesAreApart: what a machine has of its own, what all have in common,
// and that the host's files are out of reach.
func TestMachinesAreApart(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	write(t, secret, "x")
	c := Up(t, Options{Nodes: 2})
	for _, dir := range []string{"/tmp", "/dev/shm", "/run", "/var/lib/berth", "/etc/berth", "/var/log"} {
		c.MustRun(t.Context(), "n1", "root", "touch", dir+"/mark")
		if r := c.Run(t.Context(), "n2", "root", "ls", dir+"/mark"); r.Code == 0 {
			t.Errorf("%s of n1 is seen on n2", dir)
		}
		if _, err := os.Stat(dir + "/mark"); err == nil {
			t.Errorf("%s of n1 is the host's", dir)
		}
	}
	c.MustRun(t.Context(), "n1", "alice", "touch", "/home/alice/mark", "/shared/mark")
	c.MustRun(t.Context(), "n2", "alice", "ls", "/home/alice/mark", "/shared/mark")
	if r := c.Run(t.Context(), "n2", "bob", "ls", "/home/alice/mark"); r.Code == 0 {
		t.Error("bob reads the home of alice")
	}
	if r := c.Run(t.Context(), "n1", "root", "cat", secret); r.Code == 0 {
		t.Error("a file of the host is seen")
	}
	if r := c.Run(t.Context(), "n1", "root", "touch", "/usr/mark"); r.Code == 0 {
		t.Error("root of a node can write to the host's /usr")
	}
	if r := c.Run(t.Context(), "n1", "root", "mkdir", "/sys/fs/cgroup/mark"); r.Code == 0 {
		t.Error("root of a node can make cgroups of the host")
	}
	c.MustRun(t.Context(), "n1", "alice", "sh", "-c", ": <>/dev/fuse")
	c.MustRun(t.Context(), "n1", "root", "sh", "-c", "mkdir /run/berth && mount -t tmpfs none /run/berth")
	if text := read(t, "/proc/self/mountinfo"); strings.Contains(text, "/run/berth") {
		t.Error("a mount of a node shows on the host")
	}
}

// TestNamespacesCanBePinned pins mount namespaces from every CPU on every
// node; see be_the_oldest in boot.sh.
func TestNamespacesCanBePinned(t *testing.T) {
	c := Up(t, Options{})
	const pin = `
		mount -t tmpfs none /mnt && mount --make-private /mnt && cd /mnt || exit
		for cpu in $(seq 0 $(($(nproc) - 1))); do
			touch ns.$cpu
			mkfifo ready.$cpu
			taskset -c $cpu unshare -m sh -c "echo >ready.$cpu; exec sleep 1000" &
			read _ <ready.$cpu
			mount --bind /proc/$!/ns/mnt ns.$cpu || exit
			kill $!
		done`
	for _, node := range []string{"n1", "n2", "n3"} {
		c.MustRun(t.Context(), node, "root", "bash", "-c", pin)
	}
}

func TestOptions(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "bin", "hello"), "#!/bin/sh\necho hello\n")
	write(t, filepath.Join(dir, "berth.toml"), "mark\n")
	write(t, filepath.Join(dir, "plugstack"), "# from a file\n")
	c := Up(t, Options{
		Nodes:        1,
		CPUs:         3,
		Plugstack:    []string{"# a line", filepath.Join(dir, "plugstack")},
		Conf:         []string{"KillWait=17", "PrologFlags=Alloc"},
		JobContainer: true,
		Install:      []string{dir + ":/opt/berth"},
		Bind:         []string{dir + ":/srv/data"},
		ReadOnlyBind: []string{dir + ":/db"},
		Files:        []string{filepath.Join(dir, "berth.toml") + ":/etc/berth/berth.toml"},
	})
	for _, test := range []struct{ name, script, want string }{
		{"conf", "scontrol show config | sed -n 's/^KillWait *= //p'", "17 sec"},
		{"prolog flags", "scontrol show config | sed -n 's/^PrologFlags *= //p'", "Alloc,Contain"},
		{"cpus", "sinfo -h -o %C | cut -d/ -f4", "3"},
		{"plugstack", "cat /etc/slurm/plugstack.conf", "# a line\n# from a file"},
		{"install", "srun hello", "hello"},
		{"bind", "srun cat /srv/data/berth.toml", "mark"},
		{"read-only bind", "srun cat /db/berth.toml; touch /db/x 2>/dev/null || echo refused", "mark\nrefused"},
		{"file", "srun cat /etc/berth/berth.toml", "mark"},
		{"job container", "srun sh -c 'touch /tmp/x; ls /tmp'; srun ls /tmp", "x"},
		{"environment", "echo $PATH | cut -d: -f1; echo $HOME", "/home/alice\n/opt/berth/bin"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := sortLines(c.With(t).MustRun(t.Context(), "ctl", "alice", "sh", "-c", test.script)); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestRunIsBounded(t *testing.T) {
	c := Up(t, Options{Nodes: 1})
	r := c.Do(t.Context(), Command{Machine: "n1", User: "alice", Args: []string{"sleep", "1000"}, Timeout: time.Second})
	if r.Code != 124 {
		t.Errorf("time-out: %v", r)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan Result, 1)
	go func() { done <- c.Run(ctx, "n1", "alice", "sleep", "1000") }()
	await(t, func() bool { return c.Run(t.Context(), "n1", "root", "pgrep", "-u", "alice", "sleep").Code == 0 })
	cancel()
	if r := <-done; r.Code != -1 {
		t.Errorf("cancelled: %v", r)
	}
	await(t, func() bool { return c.Run(t.Context(), "n1", "root", "pgrep", "-u", "alice").Code == 1 })
}

func TestSpawn(t *testing.T) {
	c := Up(t, Options{Nodes: 1})
	c.Spawn("web", Command{
		Machine: "ctl", User: "carol", Env: []string{"GREETING=welcome"},
		Args: []string{"bash", "-c", `echo "$GREETING $(id -u)"; exec sleep 1000`},
	})
	await(t, func() bool { return strings.Contains(c.Logs(), "welcome 2003") })
	c.Stop("web")
	if r := c.Run(t.Context(), "ctl", "root", "pgrep", "-u", "carol"); r.Code != 1 {
		t.Errorf("spawned processes are left: %v", r)
	}
}

// TestNothingIsLeft compares the host before, while and after a cluster is up,
// with a loop device, a mount and processes for down to clean up.
func TestNothingIsLeft(t *testing.T) {
	links := hostLinks(t)
	c := Up(t, Options{Nodes: 2})
	dir := c.Dir
	if left := traces(t, dir); len(left) < 3 {
		t.Fatalf("the search for traces finds only %q", left)
	}
	c.MustRun(t.Context(), "ctl", "alice", "sbatch", "-Q", "--wrap", "sleep 1000")
	c.MustRun(t.Context(), "n1", "root", "sh", "-c", "setsid sleep 1000 >/dev/null 2>&1 & mount -t tmpfs none /mnt")
	loop := strings.TrimSpace(c.MustRun(t.Context(), "n1", "root", "sh", "-c",
		"truncate -s 1M /var/lib/berth/file && losetup -f --show /var/lib/berth/file"))
	if got := hostLinks(t); got != links {
		t.Errorf("the host's links changed:\n%s\n%s", links, got)
	}
	for range 2 { // the second finds nothing to do
		c.down()
		if left := traces(t, dir); len(left) != 0 {
			t.Errorf("left: %q", left)
		}
	}
	if _, err := os.Stat(filepath.Join("/sys/block", filepath.Base(loop), "loop")); err == nil {
		t.Errorf("%s is still attached", loop)
	}
	if _, err := os.Stat(dir); err == nil {
		t.Errorf("%s is left", dir)
	}
	if got := hostLinks(t); got != links {
		t.Errorf("the host's links changed:\n%s\n%s", links, got)
	}
}

// TestHostNetworkIsRefused has a ctl without a network of its own; what stands
// for the host's is a fresh one, so that nothing breaks without the guard.
func TestHostNetworkIsRefused(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can make a network namespace")
	}
	const attempt = `
		set -eu; DIR=$2; cd "$1/lib"; . ./common.sh; . ./machine.sh
		mkdir -p "$DIR/machines/ctl"; echo 0 >"$DIR/nodes"; record_pid "$DIR/machines/ctl/pid" $$
		(start_network) || true
		ip -br link show type bridge`
	out, err := exec.CommandContext(t.Context(), "unshare", "--net", "bash", "-c", attempt, "bash",
		filepath.Dir(findScript(t)), t.TempDir()).CombinedOutput()
	if want := "cluster: error: ctl has no network of its own\n"; err != nil || string(out) != want {
		t.Errorf("%v: %q, want %q", err, out, want)
	}
}

func hostLinks(t *testing.T) string {
	t.Helper()
	links, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(links)
}

// traces lists what the host has of the cluster in dir: mounts, and processes
// that were started with dir in their arguments or live among its mounts.
func traces(t *testing.T, dir string) []string {
	t.Helper()
	var found []string
	if strings.Contains(read(t, "/proc/self/mountinfo"), dir) {
		found = append(found, "mount")
	}
	files, err := filepath.Glob("/proc/[0-9]*/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		mounts, _ := os.ReadFile(file) // the process may have ended
		args, _ := os.ReadFile(filepath.Join(filepath.Dir(file), "cmdline"))
		if strings.Contains(string(mounts), dir) || strings.Contains(string(args), dir) {
			found = append(found, strings.ReplaceAll(string(args), "\x00", " "))
		}
	}
	return found
}

// script runs a command of the script and returns its exit code and output.
func script(t *testing.T, args ...string) (int, string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), findScript(t), args...)
	out, _ := cmd.CombinedOutput()
	return cmd.ProcessState.ExitCode(), string(out)
}

func TestUpTwice(t *testing.T) {
	c := Up(t, Options{Nodes: 1})
	if code, out := script(t, "up", "--dir", c.Dir, "--nodes", "1"); code != 0 || !strings.Contains(out, "up already") {
		t.Errorf("same options: %d: %s", code, out)
	}
	if code, out := script(t, "up", "--dir", c.Dir, "--nodes", "2"); code != 1 || !strings.Contains(out, "other options") {
		t.Errorf("other options: %d: %s", code, out)
	}
	c.MustRun(t.Context(), "ctl", "alice", "srun", "true")
}

func TestTwoClustersAtOnce(t *testing.T) {
	a, b := Up(t, Options{Nodes: 1}), Up(t, Options{Nodes: 2})
	if got := strings.TrimSpace(b.MustRun(t.Context(), "ctl", "alice", "sinfo", "-h", "-o", "%D")); got != "2" {
		t.Errorf("the second has %s nodes", got)
	}
	b.down()
	a.MustRun(t.Context(), "ctl", "alice", "srun", "true")
}

func TestFailedUpLeavesNothing(t *testing.T) {
	Up(t, Options{Nodes: 1}).down() // skips where there can be none
	dir := filepath.Join(t.TempDir(), "cluster")
	code, out := script(t, "up", "--dir", dir, "--conf", "NoSuchKey=1")
	if code != 1 || !strings.Contains(out, "NoSuchKey") {
		t.Errorf("exit code %d: %s", code, out)
	}
	if left := traces(t, dir); len(left) != 0 {
		t.Errorf("left: %q", left)
	}
	if _, err := os.Stat(dir); err == nil {
		t.Errorf("%s is left", dir)
	}
}

func TestForeignFolderIsLeftAlone(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can start a cluster")
	}
	dir := t.TempDir()
	write(t, filepath.Join(dir, "file"), "x")
	for _, command := range []string{"up", "down"} {
		if code, out := script(t, command, "--dir", dir); code != 1 {
			t.Errorf("%s: exit code %d: %s", command, code, out)
		}
	}
	read(t, filepath.Join(dir, "file"))
}

func TestDownWithItsOwner(t *testing.T) {
	Up(t, Options{Nodes: 1}).down()
	owner := exec.CommandContext(t.Context(), "sleep", "1000")
	if err := owner.Start(); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "cluster")
	code, out := script(t, "up", "--dir", dir, "--nodes", "1", "--owner", fmt.Sprint(owner.Process.Pid))
	if code != 0 {
		t.Fatalf("exit code %d: %s", code, out)
	}
	_ = owner.Process.Kill()
	_ = owner.Wait()
	await(t, func() bool { return len(traces(t, dir)) == 0 })
	if _, err := os.Stat(dir); err == nil {
		t.Errorf("%s is left", dir)
	}
}

// TestPower: a node that loses its power loses all but its disk, and takes jobs
// again once it is on.
func TestPower(t *testing.T) {
	c := Up(t, Options{Nodes: 2})
	c.MustRun(t.Context(), "n1", "root", "sh", "-c", "mount -t tmpfs none /mnt && touch /run/mark /mnt/mark /var/mark && sleep 1000 >/dev/null 2>&1 &")
	c.MustRun(t.Context(), "n1", "root", "sh", "-c", "printf '#!/bin/sh\ntouch /run/booted\n' >/var/rc.local && chmod 755 /var/rc.local")
	answers := func() bool {
		return c.Run(t.Context(), "ctl", "root", "timeout", "1", "bash", "-c", "</dev/tcp/n1/6818").Code == 0
	}
	if !answers() {
		t.Error("slurmd of n1 does not answer")
	}
	c.PowerOff("n1")
	if left := c.Processes("n1"); len(left) > 0 {
		t.Errorf("still there: %v", left)
	}
	if answers() {
		t.Error("it answers")
	}
	c.PowerOn("n1")
	if got := c.MustRun(t.Context(), "n1", "root", "sh", "-c", "ls /run/mark /mnt/mark /var/mark /run/booted 2>/dev/null; true"); got != "/run/booted\n/var/mark\n" {
		t.Errorf("after the boot there are %q", got)
	}
	if got := c.MustRun(t.Context(), "ctl", "alice", "srun", "-N2", "hostname"); sortLines(got) != "n1\nn2" {
		t.Errorf("a job prints %q", got)
	}
	c.WaitIdle()
}
