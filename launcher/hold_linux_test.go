package launcher_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestHold: a container stays without a task while a process of the user's
// holds it; that one can be found by its user and by nobody else.
func TestHold(t *testing.T) {
	bothWays(t, func(t *testing.T, b *bed, idmap bool) {
		for _, remap := range []bool{false, true} {
			t.Run(fmt.Sprintf("remap=%v", remap), func(t *testing.T) {
				users := b.users()
				c := b.create(b.creation(users, idmap))
				pid := 0
				must(t, c.Hold(t.Context(), b.join, users, remap, user, func(p int) error { pid = p; return nil }))
				process, err := os.FindProcess(pid)
				must(t, err)
				defer func() { must(t, process.Kill()); _, _ = process.Wait() }()
				ns := fmt.Sprintf("/proc/%d/ns/mnt", pid)
				if out := b.run(users, c, remap, "cat /proc/"+fmt.Sprint(pid)+"/comm; stat -L -c %i /proc/self/ns/mnt "+ns); !isHeld(out) {
					t.Errorf("seen from a task: %s", out)
				}
				for uid, may := range map[int]bool{user.UID: true, user.UID + 1: false} {
					cmd := exec.Command("stat", "-L", "-c", "%i", ns)
					cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
					if out, err := cmd.CombinedOutput(); (err == nil) != may {
						t.Errorf("user %d: %v %s", uid, err, out)
					}
				}
				if files := openFiles(pid); files != 0 {
					t.Errorf("it keeps %d files open", files)
				}
			})
		}
	})
}

// openFiles counts a process's descriptors when there are none any more, or
// after a while.
func openFiles(pid int) (count int) {
	for until := time.Now().Add(10 * time.Second); time.Now().Before(until); {
		files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
		if count = len(files); count == 0 && err == nil {
			return 0
		}
	}
	return count
}

func isHeld(out string) bool {
	f := strings.Fields(out)
	return len(f) == 3 && f[0] == "berth-hold" && f[1] == f[2]
}

// TestHoldEndsUnrecorded: a holder that nobody knows of would stay for ever.
func TestHoldEndsUnrecorded(t *testing.T) {
	bothWays(t, func(t *testing.T, b *bed, idmap bool) {
		users := b.users()
		c := b.create(b.creation(users, idmap))
		pid, nobody := 0, errors.New("the folder is gone")
		if err := c.Hold(t.Context(), b.join, users, false, user, func(p int) error { pid = p; return nobody }); !errors.Is(err, nobody) {
			t.Error(err)
		}
		if err := unix.Kill(pid, 0); !errors.Is(err, unix.ESRCH) {
			t.Errorf("it is there: %v", err)
		}
		// One whose maker was killed before it said that it is known.
		cmd := exec.Command(b.join, "--hold", "--user=3", "--mnt=4", "--result=5", "--user2=6")
		cmd.ExtraFiles = []*os.File{users.Outer, c.Mount, c.Result, users.Inner}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(user.UID), Gid: uint32(user.GID)}}
		var out bytes.Buffer
		cmd.Stdout, cmd.Stdin = &out, strings.NewReader("")
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		must(t, cmd.Start())
		defer context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })()
		if err := cmd.Wait(); err == nil || ctx.Err() != nil || out.String() != "\x01" {
			t.Errorf("%v, %v, %q", err, ctx.Err(), out.String())
		}
	})
}

// TestExecInAFolder: a command starts in the folder that it is given if the
// container has it, else where all tasks do.
func TestExecInAFolder(t *testing.T) {
	bothWays(t, func(t *testing.T, b *bed, idmap bool) {
		users := b.users()
		c := b.create(b.creation(users, idmap))
		for dir, want := range map[string]string{"/usr/lib": "/usr/lib", "/no/such": "/"} {
			cmd := exec.Command(b.join, "--user=3", "--mnt=4", "--result=5", "--user2=6", "--cwd="+dir, "--", "/bin/pwd")
			cmd.ExtraFiles = []*os.File{users.Outer, c.Mount, c.Result, users.Inner}
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(user.UID), Gid: uint32(user.GID)}}
			if out, err := cmd.CombinedOutput(); err != nil || strings.TrimSpace(string(out)) != want {
				t.Errorf("%s: %s, %v", dir, out, err)
			}
		}
	})
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
