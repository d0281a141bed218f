package launcher

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"
)

func TestPins(t *testing.T) {
	if !privateMounts(t) {
		return
	}
	m := openMounts(t)
	a, b := userNamespace(t), userNamespace(t)
	if err := m.Pin(t.Context(), "17", Pin{"user1", a}, Pin{"user2", b}); err != nil {
		t.Fatal(err)
	}
	if err := m.Pin(t.Context(), "17", Pin{"user1", b}, Pin{"user2", a}); !errors.Is(err, fs.ErrExist) {
		t.Errorf("second Pin of the same job: %v", err)
	}
	got, err := m.OpenPin("17", "user1")
	if err != nil {
		t.Fatal(err)
	}
	defer got.Close()
	if err := sameNamespace(got, a); err != nil {
		t.Error(err)
	}
	if err := checkNSType(got, unix.CLONE_NEWUSER); err != nil {
		t.Error(err)
	}
	if jobs, err := m.PinnedJobs(); err != nil || len(jobs) != 1 || jobs[0] != "17" {
		t.Errorf("PinnedJobs() = %q, %v", jobs, err)
	}
	for range 2 {
		if err := m.Unpin(t.Context(), "17"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := m.OpenPin("17", "user1"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("OpenPin after Unpin: %v", err)
	}
}

// userNamespace returns a user namespace that no process is in.
func userNamespace(t *testing.T) *os.File {
	t.Helper()
	cmd := exec.Command("unshare", "-Ur", "sh", "-c", "echo ready; exec cat")
	in, err1 := cmd.StdinPipe()
	out, err2 := cmd.StdoutPipe()
	if err := errors.Join(err1, err2, cmd.Start()); err != nil {
		t.Fatal(err)
	}
	defer func() { in.Close(); _ = cmd.Wait() }()
	if n, err := out.Read(make([]byte, 16)); n == 0 {
		t.Fatal(err)
	}
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/user", cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	return ns
}

// A killed process may leave half of a job's pins: the next one starts over.
func TestPinAfterCrash(t *testing.T) {
	if !privateMounts(t) {
		return
	}
	m := openMounts(t)
	a, b := userNamespace(t), userNamespace(t)
	if err := m.Pin(t.Context(), "17", Pin{"user1", a}); err != nil {
		t.Fatal(err)
	}
	if err := m.Pin(t.Context(), "17", Pin{"user1", b}, Pin{"user2", a}); err != nil {
		t.Fatal(err)
	}
	got, err := m.OpenPin("17", "user1")
	if err != nil {
		t.Fatal(err)
	}
	defer got.Close()
	if err := sameNamespace(got, b); err != nil {
		t.Error(err)
	}
}
