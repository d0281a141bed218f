package launcher

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// within calls f on a thread in the namespace of the image mounts.
func (m *Mounts) within(f func() error) error {
	return onThread(func() error {
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return os.NewSyscallError("unshare(CLONE_FS)", err)
		}
		if err := unix.Setns(int(m.ns.Fd()), unix.CLONE_NEWNS); err != nil {
			return os.NewSyscallError("setns of the image mounts", err)
		}
		return f()
	})
}

// onThread calls f on a thread of its own that ends with it, so that f may
// change the thread's namespaces: a goroutine that returns while locked takes
// its thread along. Descriptors that f opens belong to the process and stay.
//
// The main thread can't end; the runtime would park it in the other namespace,
// and /proc/self with it. A goroutine that finds itself there holds the thread
// and passes the work on to another.
//
// A child started with Pdeathsig may die with such a thread (prctl(2) means
// the thread that forked it): programs that use this must not set it.
func onThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			done <- onThread(f)
			runtime.UnlockOSThread()
			return
		}
		done <- f()
	}()
	return <-done
}

// openMountsNamespace opens the pin, and makes it first where it is missing.
func openMountsNamespace(ctx context.Context, dir string) (*os.File, error) {
	if f, err := findMountsNamespace(dir); f != nil || err != nil {
		return f, err
	}
	lock, err := lockRunDir(ctx, dir)
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	if f, err := findMountsNamespace(dir); f != nil || err != nil {
		return f, err
	}
	pin := filepath.Join(dir, mountsNamespaceFile)
	if err := makeMountsNamespace(dir, pin); err != nil {
		return nil, err
	}
	return openNamespace(pin)
}

// findMountsNamespace looks at the caller's own view and then at the node's:
// a mount namespace made since (job_container/tmpfs with the whole step in it)
// has a copy of the run folder without the pin.
func findMountsNamespace(dir string) (*os.File, error) {
	pin := filepath.Join(dir, mountsNamespaceFile)
	for _, path := range []string{pin, filepath.Join("/proc/1/root", pin)} {
		f, err := openNamespace(path)
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, os.ErrNotExist) && !errors.Is(err, os.ErrPermission) {
			return nil, err
		}
	}
	return nil, nil
}

// openNamespace opens a bound mount namespace; os.ErrNotExist when path is
// missing or still a plain file.
func openNamespace(path string) (*os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err != nil {
		f.Close()
		return nil, os.NewSyscallError("fstatfs", err)
	}
	if st.Type != unix.NSFS_MAGIC {
		f.Close()
		return nil, &os.PathError{Op: "open namespace", Path: path, Err: os.ErrNotExist}
	}
	if err := checkHostMountNamespace(f); err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return f, nil
}

// makeMountsNamespace makes the namespace and pins it. It runs under the lock
// of the run folder.
//
// The kernel refuses (EINVAL) to bind a mount namespace in one that is not
// older. Linux 6.18 compares numbers that each CPU draws from a batch of its
// own, so a new namespace may look older when it is made on another CPU than
// the caller's was; the node's first one is older than any. So the CPUs are
// tried in turn: at least the one that made the caller's works.
//
// Whatever mode the file under the pin has, the kernel lets everybody open a
// namespace whose name they can reach, and so keep it: the pin's folder is
// root's alone.
func makeMountsNamespace(dir, pin string) error {
	if err := os.Mkdir(filepath.Dir(pin), 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	f, err := os.OpenFile(pin, os.O_CREATE|os.O_RDONLY|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	f.Close()
	var cpus unix.CPUSet
	if err := unix.SchedGetaffinity(0, &cpus); err != nil {
		return os.NewSyscallError("sched_getaffinity", err)
	}
	for cpu := range len(cpus) * 64 {
		if !cpus.IsSet(cpu) {
			continue
		}
		if err = pinNewNamespace(dir, pin, cpu); !errors.Is(err, unix.EINVAL) {
			return err
		}
	}
	return err
}

// pinNewNamespace makes the namespace on one CPU and binds it at pin.
func pinNewNamespace(dir, pin string, cpu int) error {
	var only unix.CPUSet
	only.Set(cpu)
	ready, finish, ended := make(chan string, 1), make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- onThread(func() error {
			if err := unix.SchedSetaffinity(0, &only); err != nil {
				return os.NewSyscallError("sched_setaffinity", err)
			}
			if err := emptyNamespace(dir); err != nil {
				return err
			}
			ready <- fmt.Sprintf("/proc/self/task/%d/ns/mnt", unix.Gettid())
			<-finish // the namespace lives by this thread until it is bound
			return nil
		})
	}()
	select {
	case err := <-ended:
		return fmt.Errorf("make the namespace of the image mounts: %w", err)
	case source := <-ready:
		err := unix.Mount(source, pin, "", unix.MS_BIND, "")
		close(finish)
		<-ended //nolint:errcheck // it waited, and did no more
		if err != nil {
			return &os.PathError{Op: "pin mount namespace at", Path: pin, Err: err}
		}
		return nil
	}
}

// emptyNamespace moves the calling thread into a new mount namespace that
// holds a tmpfs alone.
func emptyNamespace(dir string) error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return os.NewSyscallError("unshare(CLONE_NEWNS)", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return os.NewSyscallError("mount(MS_PRIVATE)", err)
	}
	const flags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	if err := unix.Mount("berth", dir, "tmpfs", flags, "mode=0700,size=1m"); err != nil {
		return os.NewSyscallError("mount(tmpfs)", err)
	}
	if err := unix.Chdir(dir); err != nil {
		return os.NewSyscallError("chdir", err)
	}
	// The old root lands on top of the new one, and goes (pivot_root(2)).
	if err := unix.PivotRoot(".", "."); err != nil {
		return os.NewSyscallError("pivot_root", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return os.NewSyscallError("umount of the old root", err)
	}
	if err := unix.Chdir("/"); err != nil {
		return os.NewSyscallError("chdir", err)
	}
	return errors.Join(os.Mkdir(imagesDir, 0o700), os.Mkdir(pinsDir, 0o700))
}

// lockRunDir makes dir a private mount, as pinning a mount namespace needs,
// and returns it locked.
func lockRunDir(ctx context.Context, dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return nil, err
	}
	for {
		f, same, err := flockDir(ctx, dir)
		if err != nil {
			return nil, err
		}
		if same && isMountRoot(dir) {
			err := unix.Mount("", dir, "", unix.MS_PRIVATE, "")
			if err != nil {
				f.Close()
				return nil, &os.PathError{Op: "make private", Path: dir, Err: err}
			}
			return f, nil
		}
		if same {
			err = coverRunDir(dir)
		}
		f.Close()
		if err != nil {
			return nil, err
		}
	}
}

// coverRunDir mounts the tmpfs of the run folder: job folders, logs and error
// records, a few kilobytes each. 0711: a job's folder may be open to its
// group, the list of jobs is not.
func coverRunDir(dir string) error {
	const flags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	if err := unix.Mount("berth", dir, "tmpfs", flags, "mode=0711,size=256m"); err != nil {
		return &os.PathError{Op: "mount tmpfs on", Path: dir, Err: err}
	}
	return nil
}

// flockDir locks the folder that dir names and says whether dir still names
// it: another process may have covered it in the meantime.
func flockDir(ctx context.Context, dir string) (*os.File, bool, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, false, err
	}
	if err := Flock(ctx, f); err != nil {
		f.Close()
		return nil, false, err
	}
	locked, err1 := f.Stat()
	now, err2 := os.Stat(dir)
	if err := errors.Join(err1, err2); err != nil {
		f.Close()
		return nil, false, err
	}
	return f, os.SameFile(locked, now), nil
}

// Flock takes the exclusive lock of f, or gives up with ctx. It asks again and
// again: a blocking flock(2) can't be given up.
func Flock(ctx context.Context, f *os.File) error {
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return &os.PathError{Op: "flock", Path: f.Name(), Err: err}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("flock %s: %w", f.Name(), ctx.Err())
		case <-time.After(2 * time.Millisecond):
		}
	}
}
