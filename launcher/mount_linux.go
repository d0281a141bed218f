package launcher

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Mounts are the image mounts of a node: one superblock per image, shared by
// all containers of all jobs. It needs root.
//
// The mounts live in a mount namespace of their own, pinned by a bind mount at
// private/mounts.ns in the run folder (/run/berth). That namespace was pivoted onto an
// empty tmpfs and holds no file system of the host's, so it keeps none busy.
// The host's own namespace shows nothing of the images: a mount there would be
// copied into every user's `unshare -Urm`, which would keep image and loop
// device alive after the job. The kernel leaves the pin itself out of such
// copies (copy_tree skips bound mount namespaces).
//
// The same place pins the user namespaces of jobs, for the same reason.
//
// All methods may be called by many processes at once. Close releases the
// descriptor; mounts and pins stay.
type Mounts struct {
	dir string   // the run folder
	ns  *os.File // the pinned mount namespace
}

// OpenMounts makes what is missing of the run folder dir (created 0711 and
// covered by a small private tmpfs) and of the namespace pinned in it.
func OpenMounts(ctx context.Context, dir string) (*Mounts, error) {
	ns, err := openMountsNamespace(ctx, dir)
	if err != nil {
		return nil, fmt.Errorf("open the image mounts of %s: %w", dir, err)
	}
	return &Mounts{dir: dir, ns: ns}, nil
}

// Close releases the handle and leaves every mount as it is.
func (m *Mounts) Close() error { return m.ns.Close() }

// MountImage mounts the squashfs file image read-only, nosuid and nodev under
// name, unless that name is mounted already: callers name an image by its
// contents (<digest>.<policy>). Of concurrent callers one mounts. The file
// must be one that the store converted itself: the kernel parses it.
func (m *Mounts) MountImage(ctx context.Context, name string, image *os.File) error {
	if err := checkMountName(name); err != nil {
		return err
	}
	unlock, err := m.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if mounted, err := m.isMounted(name); mounted || err != nil {
		return err
	}
	mount, err := mountSquashfs(ctx, image)
	if err != nil {
		return fmt.Errorf("mount image %s: %w", name, err)
	}
	defer mount.Close()
	return m.within(func() error { return attachDir(mount, filepath.Join(imagesDir, name)) })
}

// UnmountImage detaches the mount of name from the node. Containers that hold
// a copy of it keep theirs. A name that is not mounted is no error.
func (m *Mounts) UnmountImage(ctx context.Context, name string) error {
	if err := checkMountName(name); err != nil {
		return err
	}
	return m.change(ctx, func() error { return detach(filepath.Join(imagesDir, name)) })
}

// change calls f in the namespace of the image mounts while nobody else
// changes what is mounted there.
func (m *Mounts) change(ctx context.Context, f func() error) error {
	unlock, err := m.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	return m.within(f)
}

// CloneImage returns a detached copy of the mount of name, to be idmapped and
// attached elsewhere. The error is fs.ErrNotExist when name is not mounted.
// The caller's lease keeps the mount; closing the file drops the copy.
func (m *Mounts) CloneImage(name string) (*os.File, error) {
	if err := checkMountName(name); err != nil {
		return nil, err
	}
	var clone *os.File
	err := m.within(func() (err error) {
		clone, err = cloneMount(filepath.Join(imagesDir, name))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("copy the mount of image %s: %w", name, err)
	}
	return clone, nil
}

// Images lists the names that are mounted.
func (m *Mounts) Images() ([]string, error) {
	var names []string
	err := m.within(func() error {
		entries, err := os.ReadDir(imagesDir)
		for _, e := range entries {
			// A process killed between mkdir and move_mount leaves a
			// plain folder, which the next MountImage takes over.
			if isMountRoot(filepath.Join(imagesDir, e.Name())) {
				names = append(names, e.Name())
			}
		}
		return err
	})
	return names, err
}

func (m *Mounts) isMounted(name string) (mounted bool, err error) {
	err = m.within(func() error {
		mounted = isMountRoot(filepath.Join(imagesDir, name))
		return nil
	})
	return mounted, err
}

// lock serialises changes among all processes of the node. Holding it takes
// milliseconds.
func (m *Mounts) lock(ctx context.Context) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(m.dir, mountsLockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the image mounts: %w", err)
	}
	if err := Flock(ctx, f); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock the image mounts: %w", err)
	}
	return func() { f.Close() }, nil
}

// attachDir attaches a detached mount at path, which it creates.
func attachDir(mount *os.File, path string) error {
	if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return moveMount(mount, path)
}

// detach undoes attachDir.
func detach(path string) error {
	if isMountRoot(path) {
		if err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			return &os.PathError{Op: "umount", Path: path, Err: err}
		}
	}
	if err := unix.Rmdir(path); err != nil && !errors.Is(err, unix.ENOENT) {
		return &os.PathError{Op: "rmdir", Path: path, Err: err}
	}
	return nil
}

func cloneMount(path string) (*os.File, error) {
	if !isMountRoot(path) {
		return nil, fs.ErrNotExist
	}
	fd, err := unix.OpenTree(unix.AT_FDCWD, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("open_tree", err)
	}
	return os.NewFile(uintptr(fd), path), nil
}

func moveMount(mount *os.File, path string) error {
	err := unix.MoveMount(int(mount.Fd()), "", unix.AT_FDCWD, path, unix.MOVE_MOUNT_F_EMPTY_PATH)
	return os.NewSyscallError("move_mount", err)
}

// isMountRoot says whether something is mounted at path.
func isMountRoot(path string) bool {
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW, unix.STATX_BASIC_STATS, &st)
	return err == nil && st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0
}
