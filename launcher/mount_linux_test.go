package launcher

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const inPrivateMounts = "BERTH_TEST_PRIVATE_MOUNTS"

// privateMounts runs the test again as a process in a mount namespace of its
// own, where the host's mounts are slaves, and reports whether it is that one.
// What the test leaves mounted can't outlive it.
func privateMounts(t *testing.T) bool {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: mounts images")
	}
	if _, err := exec.LookPath("mksquashfs"); err != nil {
		t.Skip("needs mksquashfs (package squashfs-tools)")
	}
	if os.Getenv(inPrivateMounts) != "" {
		return true
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "unshare", "--mount", "--propagation=slave", os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), inPrivateMounts+"=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("%s", out)
	return false
}

// squashfs makes an image that holds one file.
func squashfs(t *testing.T, content string) *os.File {
	t.Helper()
	dir := t.TempDir()
	tree := filepath.Join(dir, "tree")
	if err := os.Mkdir(tree, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(tree, "hello"), []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "rootfs.sqfs")
	if out, err := exec.Command("mksquashfs", tree, path, "-quiet", "-no-progress").CombinedOutput(); err != nil {
		t.Fatalf("mksquashfs: %v\n%s", err, out)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func openMounts(t *testing.T) *Mounts {
	t.Helper()
	dir := runDir(t)
	m, err := OpenMounts(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

// runDir names a run folder and ends what gets mounted there.
func runDir(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "berth")
	t.Cleanup(func() {
		// The pin first: the folder below it is busy otherwise.
		_ = unix.Unmount(filepath.Join(dir, mountsNamespaceFile), unix.MNT_DETACH)
		_ = unix.Unmount(dir, unix.MNT_DETACH)
	})
	return dir
}

// loops counts the loop devices over a file.
func loops(t *testing.T, image *os.File) int {
	t.Helper()
	files, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, f := range files {
		data, _ := os.ReadFile(f) // the device may go while we look
		if strings.TrimSpace(string(data)) == image.Name() {
			n++
		}
	}
	return n
}

// waitLoops waits for the kernel, or udev's probe, to let go of devices.
func waitLoops(t *testing.T, image *os.File, want int) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(10 * time.Second)
	for loops(t, image) != want {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%d loop devices over %s, want %d", loops(t, image), image.Name(), want)
		}
	}
}

func mountinfo(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile("/proc/thread-self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestMountImage(t *testing.T) {
	if !privateMounts(t) {
		return
	}
	m, image := openMounts(t), squashfs(t, "inside")
	for range 2 { // idempotent
		if err := m.MountImage(t.Context(), "abc.1", image); err != nil {
			t.Fatal(err)
		}
	}
	if n := loops(t, image); n != 1 {
		t.Errorf("%d loop devices for one image", n)
	}
	if strings.Contains(mountinfo(t), "squashfs") {
		t.Error("the image is visible in the caller's mount namespace")
	}
	if names, err := m.Images(); err != nil || len(names) != 1 || names[0] != "abc.1" {
		t.Errorf("Images() = %q, %v", names, err)
	}
	if got := readFromClone(t, m, "abc.1"); got != "inside" {
		t.Errorf("read %q from the clone", got)
	}
	for range 2 {
		if err := m.UnmountImage(t.Context(), "abc.1"); err != nil {
			t.Fatal(err)
		}
	}
	waitLoops(t, image, 0)
	if _, err := m.CloneImage("abc.1"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("clone of an unmounted image: %v", err)
	}
}

// readFromClone also checks the flags of the copy.
func readFromClone(t *testing.T, m *Mounts, name string) string {
	t.Helper()
	clone, err := m.CloneImage(name)
	if err != nil {
		t.Fatal(err)
	}
	defer clone.Close()
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(clone.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	const want = unix.ST_RDONLY | unix.ST_NOSUID | unix.ST_NODEV
	if st.Flags&want != want {
		t.Errorf("flags of the clone are %#x", st.Flags)
	}
	fd, err := unix.Openat(int(clone.Fd()), "hello", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "hello")
	defer f.Close()
	buf := make([]byte, 64)
	n, err := f.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	return string(buf[:n])
}

func TestMountImageConcurrently(t *testing.T) {
	if !privateMounts(t) {
		return
	}
	dir := runDir(t)
	image, other := squashfs(t, "one"), squashfs(t, "two")
	var wg sync.WaitGroup
	errs := make(chan error, 32)
	for i := range 16 {
		wg.Go(func() {
			m, err := OpenMounts(t.Context(), dir)
			if err != nil {
				errs <- err
				return
			}
			defer m.Close()
			if err := m.MountImage(t.Context(), "one", image); err != nil {
				errs <- fmt.Errorf("%d: %w", i, err)
			}
			if err := m.MountImage(t.Context(), "two", other); err != nil {
				errs <- fmt.Errorf("%d: %w", i, err)
			}
		})
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		t.Error(err)
	}
	if a, b := loops(t, image), loops(t, other); a != 1 || b != 1 {
		t.Errorf("%d and %d loop devices, want 1 and 1", a, b)
	}
	pins := strings.Count(mountinfo(t), filepath.Join(dir, mountsNamespaceFile)+" ")
	if covers := strings.Count(mountinfo(t), dir+" "); covers != 1 || pins != 1 {
		t.Errorf("%d mounts on the run folder and %d pins, want 1 and 1", covers, pins)
	}
}

// A user's own mount namespace, made while the image is mounted, must not
// keep the image and its loop device. A mount in the host's namespace does
// get stuck that way: the test shows that it would see it.
func TestLingeringUserNamespace(t *testing.T) {
	if !privateMounts(t) {
		return
	}
	m, image, control := openMounts(t), squashfs(t, "inside"), squashfs(t, "control")
	if err := m.MountImage(t.Context(), "abc.1", image); err != nil {
		t.Fatal(err)
	}
	visible := filepath.Join(t.TempDir(), "visible")
	mount, err := mountSquashfs(t.Context(), control)
	if err != nil {
		t.Fatal(err)
	}
	if err := attachDir(mount, visible); err != nil {
		t.Fatal(err)
	}
	mount.Close()
	end := lingerAsUser(t)
	if err := m.UnmountImage(t.Context(), "abc.1"); err != nil {
		t.Fatal(err)
	}
	// Only umount: removing the mount point would take the copies along.
	if err := unix.Unmount(visible, unix.MNT_DETACH); err != nil {
		t.Fatal(err)
	}
	waitLoops(t, image, 0)
	if loops(t, control) != 1 {
		t.Error("the control mount is gone too: this test proves nothing")
	}
	end()
	waitLoops(t, control, 0)
}

// lingerAsUser starts `unshare -Urm` of an ordinary user and returns once its
// namespaces exist.
func lingerAsUser(t *testing.T) (end func()) {
	t.Helper()
	cmd := exec.Command("unshare", "-Urm", "sh", "-c", "echo ready; exec sleep 60")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	cmd.Dir = "/"
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	end = sync.OnceFunc(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	t.Cleanup(end)
	if n, err := out.Read(make([]byte, 16)); n == 0 {
		t.Fatalf("unshare -Urm as an ordinary user: %v", err)
	}
	return end
}

// The clone that a container holds stays readable after the node let go.
func TestCloneOutlivesUnmount(t *testing.T) {
	if !privateMounts(t) {
		return
	}
	m, image := openMounts(t), squashfs(t, "inside")
	if err := m.MountImage(t.Context(), "abc.1", image); err != nil {
		t.Fatal(err)
	}
	clone, err := m.CloneImage("abc.1")
	if err != nil {
		t.Fatal(err)
	}
	if err := m.UnmountImage(t.Context(), "abc.1"); err != nil {
		t.Fatal(err)
	}
	if err := unix.Faccessat(int(clone.Fd()), "hello", unix.R_OK, 0); err != nil {
		t.Errorf("file of the clone: %v", err)
	}
	clone.Close()
	waitLoops(t, image, 0)
}

// zeros is a file that no file system is in.
func zeros(t *testing.T) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "junk"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := f.Truncate(1 << 20); err != nil {
		t.Fatal(err)
	}
	return f
}

func TestMountImageRefusesWhatIsNoImage(t *testing.T) {
	if !privateMounts(t) {
		return
	}
	m, junk := openMounts(t), zeros(t)
	if err := m.MountImage(t.Context(), "junk", junk); err == nil {
		t.Fatal("mounted a file of zeros")
	}
	waitLoops(t, junk, 0)
	for _, name := range []string{"", ".", "..", "a/b", "a b", "a\n", strings.Repeat("a", 300)} {
		if err := m.MountImage(t.Context(), name, junk); err == nil || !strings.Contains(err.Error(), "bad name") {
			t.Errorf("name %q: %v", name, err)
		}
	}
}

// What a refusal quotes of the kernel is about its own device, whoever else
// mounts and is refused at the same time.
func TestRefusalsQuoteTheirOwnDevice(t *testing.T) {
	if !privateMounts(t) {
		return
	}
	image, junk := squashfs(t, "inside"), zeros(t)
	refusal := regexp.MustCompile(`on /dev/(loop\d+): not a file system that the kernel can mount: invalid argument: "e [^"\\]* on (loop\d+)\\n"$`)
	var both sync.WaitGroup
	for range 4 {
		both.Go(func() {
			for range 25 {
				if mount, err := mountSquashfs(t.Context(), image); err != nil {
					t.Error(err)
				} else {
					mount.Close()
				}
			}
		})
		both.Go(func() {
			for range 25 {
				_, err := mountSquashfs(t.Context(), junk)
				if got := refusal.FindStringSubmatch(fmt.Sprint(err)); got == nil || got[1] != got[2] {
					t.Error(err)
				}
			}
		})
	}
	both.Wait()
	waitLoops(t, image, 0)
	waitLoops(t, junk, 0)
}
