package launcher

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The namespace of the mounts must not keep any file system of the host busy.
func TestMountsNamespaceHoldsNothingElse(t *testing.T) {
	if !privateMounts(t) {
		return
	}
	m := openMounts(t)
	var lines []string
	err := onThread(func() error {
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return err
		}
		proc, err := os.Open("/proc") // the namespace has none
		if err != nil {
			return err
		}
		defer proc.Close()
		if err := unix.Setns(int(m.ns.Fd()), unix.CLONE_NEWNS); err != nil {
			return err
		}
		fd, err := unix.Openat(int(proc.Fd()), fmt.Sprintf("self/task/%d/mountinfo", unix.Gettid()), unix.O_RDONLY, 0)
		if err != nil {
			return err
		}
		info := os.NewFile(uintptr(fd), "mountinfo")
		defer info.Close()
		buf := make([]byte, 1<<16)
		n, err := info.Read(buf)
		lines = strings.Split(strings.TrimSpace(string(buf[:n])), "\n")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(lines) != 1 || !strings.Contains(lines[0], " / / ") || !strings.Contains(lines[0], "tmpfs") {
		t.Errorf("mounts in the namespace:\n%s", strings.Join(lines, "\n"))
	}
}

// A user can bind a namespace that they can open, whatever its owner, and keeps
// it for as long as they like.
func TestMountsNamespaceIsRoots(t *testing.T) {
	if !privateMounts(t) {
		return
	}
	m := openMounts(t)
	for up := m.dir; up != os.TempDir(); up = filepath.Dir(up) {
		if err := os.Chmod(up, 0o711); err != nil {
			t.Fatal(err)
		}
	}
	asUser := func(path string) string {
		cmd := exec.Command("sh", "-c", "exec 3<$0 && echo opened", path)
		cmd.Env, cmd.Dir = []string{"PATH=/usr/bin:/bin", "LC_ALL=C"}, "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 62001, Gid: 62001}}
		out, _ := cmd.CombinedOutput()
		return string(out)
	}
	open := filepath.Join(m.dir, "open")
	if err := os.WriteFile(open, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if got := asUser(open); got != "opened\n" {
		t.Errorf("a file beside it: %s", got)
	}
	if got := asUser(filepath.Join(m.dir, mountsNamespaceFile)); !strings.Contains(got, "ermission denied") {
		t.Errorf("the pin: %s", got)
	}
}

// Most hosts have shared mounts, and namespaces that get what is mounted
// there: pinning a mount namespace would fail for their sake.
func TestOpenMountsBelowSharedMount(t *testing.T) {
	if !privateMounts(t) {
		return
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
		t.Fatal(err)
	}
	peer, end := make(chan error), make(chan struct{})
	defer close(end)
	go func() {
		_ = onThread(func() error {
			peer <- unix.Unshare(unix.CLONE_NEWNS)
			<-end
			return nil
		})
	}()
	if err := <-peer; err != nil {
		t.Fatal(err)
	}
	openMounts(t)
}

// Who waited for the lock of a folder that got covered in the meantime holds
// the lock of nothing.
func TestLockRunDirWhileItIsCovered(t *testing.T) {
	if !privateMounts(t) {
		return
	}
	dir := runDir(t)
	if err := os.Mkdir(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	below, _, err := flockDir(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		f, err := lockRunDir(t.Context(), dir)
		if err == nil {
			f.Close()
		}
		done <- err
	}()
	for deadline := time.Now().Add(10 * time.Second); openCount(t, dir) < 2; {
		if time.Now().After(deadline) {
			t.Fatal("nobody waits for the lock")
		}
	}
	if err := coverRunDir(dir); err != nil {
		t.Fatal(err)
	}
	above, _, err := flockDir(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	below.Close()
	select {
	case err := <-done:
		t.Fatalf("got the lock while it was held: %v", err)
	case <-time.After(200 * time.Millisecond):
	}
	above.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// Linux 6.18 may take a new namespace for an older one: see
// makeMountsNamespace. Whichever CPU made the caller's, the pin succeeds.
func TestPinFromAnyCPU(t *testing.T) {
	if !privateMounts(t) {
		return
	}
	var all unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		t.Fatal(err)
	}
	for cpu := range len(all) * 64 {
		if !all.IsSet(cpu) {
			continue
		}
		var one unix.CPUSet
		one.Set(cpu)
		dir := t.TempDir()
		err := onThread(func() error {
			err := errors.Join(unix.SchedSetaffinity(0, &one), unix.Unshare(unix.CLONE_NEWNS), unix.SchedSetaffinity(0, &all),
				unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
			if err != nil {
				return err
			}
			return makeMountsNamespace(dir, filepath.Join(dir, "pin"))
		})
		if err != nil {
			t.Errorf("caller's namespace made on CPU %d: %v", cpu, err)
		}
	}
}

// openCount is how often this process has path open.
func openCount(t *testing.T, path string) int {
	t.Helper()
	fds, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, fd := range fds {
		if target, _ := os.Readlink(fd); target == path {
			n++
		}
	}
	return n
}
