package launcher_test

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/berth-hpc/berth/launcher"
)

// tellRunning is what the test binary does as another process: it prints which
// containers its user finds. With a process and a marker it tries to open that
// one, as somebody would who knows both.
func tellRunning() {
	all, err := launcher.FindRunning()
	if err != nil {
		fmt.Println(err)
	}
	if len(os.Args) > 3 {
		pid, _ := strconv.Atoi(os.Args[2])
		r := &launcher.Running{PIDs: []int{pid}}
		if err := json.Unmarshal([]byte(os.Args[3]), &r.Marker); err != nil {
			fmt.Println(err)
		}
		all = []*launcher.Running{r}
	}
	for _, r := range all {
		c, users, err := r.Open()
		if err != nil {
			fmt.Println(r.Name, err)
			continue
		}
		c.Close()
		users.Close()
		fmt.Println(r.Name, len(r.PIDs), "opened")
	}
}

// found is what a user finds.
func (b *bed) found(uid int, args ...string) string {
	b.t.Helper()
	cmd := exec.CommandContext(b.t.Context(), selfExe, append([]string{"running"}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		b.t.Fatalf("%v %s", err, out)
	}
	for line := range strings.Lines(string(out)) { // other tests may have containers
		if text, ok := strings.CutPrefix(line, mine()); ok {
			return "mine" + strings.TrimRight(text, "\n")
		}
	}
	return ""
}

// mine is what this process's containers are called.
func mine() string { return fmt.Sprintf("mine-%d", os.Getpid()) }

// task starts a task that runs until the returned function ends it; the script
// must print a line and then wait for its standard input.
func (b *bed) task(users *launcher.UserNamespaces, c *launcher.Container, remap bool, script string) (pid int, end func()) {
	b.t.Helper()
	cmd := b.command(b.t.Context(), users, c, remap, script)
	in, err := cmd.StdinPipe()
	if err != nil {
		b.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	if _, err := io.ReadFull(out, make([]byte, 1)); err != nil {
		b.t.Fatal(err)
	}
	return cmd.Process.Pid, func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			b.t.Error(err)
		}
	}
}

// A user finds the containers that they run in, and nobody else does: not
// another user, who is told everything about it, and not root, who would
// enter a namespace of the user's.
func TestRunningIsTheUsersOwn(t *testing.T) {
	bothWays(t, func(t *testing.T, b *bed, idmap bool) {
		users := b.users()
		for _, remap := range []bool{false, true} {
			cr := b.creation(users, idmap)
			cr.Request.Label, cr.Request.RemapRoot = launcher.Label{Name: mine()}, remap
			c := b.create(cr)
			marker := b.run(users, c, remap, "cat /.berth")
			pid, end := b.task(users, c, remap, "cat /proc/self/stat; exec cat")
			args := []string{strconv.Itoa(pid), marker}
			for _, tc := range []struct {
				who  int
				args []string
				want string
			}{
				{user.UID, nil, "mine 1 opened"},
				{user.UID, args, "mine 1 opened"},
				{user.UID + 1, nil, ""},
				{user.UID + 1, args, fmt.Sprintf("mine open /proc/%d/ns/mnt: permission denied", pid)},
				{0, nil, ""},
				{0, args, fmt.Sprintf("mine process %d: owner is uid %d, want 0", pid, user.UID)},
			} {
				if got := b.found(tc.who, tc.args...); got != tc.want {
					t.Errorf("remap %v: uid %d with %d arguments finds %q, want %q", remap, tc.who, len(tc.args), got, tc.want)
				}
			}
			end()
			if got := b.found(user.UID, args...); !strings.Contains(got, "no such file or directory") {
				t.Errorf("a container that ended: %q", got)
			}
		}
	})
}

// What a program in a container makes is not a container, and what is not the
// file of the container's builder is no marker.
func TestRunningIsNotFooled(t *testing.T) {
	if !launcher.PrivateMounts(t) {
		return
	}
	b := newBed(t)
	users := b.users()
	cr := b.creation(users, false)
	cr.Request.Label, cr.Request.RemapRoot = launcher.Label{Name: mine()}, true
	c := b.create(cr)
	marker := b.run(users, c, true, "cat /.berth")
	pid, end := b.task(users, c, true, "busybox unshare -m sh -c 'echo; exec cat'")
	defer end()
	if got := b.found(user.UID); got != "" {
		t.Errorf("a namespace that a program made is found: %q", got)
	}
	if got := b.found(user.UID, strconv.Itoa(pid), marker); !strings.Contains(got, "in the container no more") {
		t.Errorf("a process outside of the container is taken for one inside: %q", got)
	}
	for _, script := range []string{"cat /.berth", "echo x >/.berth", "rm -f /.berth"} {
		if got := b.run(users, c, false, script); (script == "cat /.berth") != (got == marker) {
			t.Errorf("%s: %q", script, got)
		}
	}
}

// The builder runs as the user: namespaces of another kind, or of somebody
// else's, are not passed on.
func TestOwnNamespacesAreChecked(t *testing.T) {
	if !launcher.PrivateMounts(t) {
		return
	}
	b := newBed(t)
	users, others := b.users(), b.users()
	cr := b.creation(users, false)
	cr.Request.Unshare = []string{launcher.UnshareIPC, launcher.UnshareNet}
	c := b.create(cr)
	host, err := os.Open("/proc/self/ns/ipc")
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	for name, tc := range map[string]struct {
		ipc  *os.File
		kind string
		n1   *os.File
		want string
	}{
		"good":         {c.Own[0].File, "ipc", users.Outer, ""},
		"another kind": {c.Own[1].File, "ipc", users.Outer, "namespace of type"},
		"the node's":   {host, "ipc", users.Outer, "is not its own"},
		"of another":   {c.Own[0].File, "ipc", others.Outer, "is not its own"},
		"no namespace": {c.Result, "ipc", users.Outer, "not a namespace"},
	} {
		err := launcher.CheckOwn(tc.ipc, tc.kind, tc.n1)
		if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", name, err, tc.want)
		}
	}
}
