package launcher

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// A Stage is what root prepares for one container: a private mount namespace
// made from the job's view of the node, with the image attached in a place
// that only this namespace has. The user's mount namespace is copied from it,
// and that copy locks nosuid, nodev and read-only on everything found there
// (mount_namespaces(7)).
type Stage struct {
	// View is the job's mount namespace: with job_container/tmpfs it is not
	// the node's. nil means the caller's own.
	View *os.File
	// Image is a detached copy of the image's mount, see Mounts.CloneImage;
	// nil when the user mounts the image with FUSE.
	Image *os.File
	// Dir is Berth's folder on the node, /run/berth: root-owned, in every
	// view. A tmpfs covers it in the stage, which also hides the node's state.
	Dir string
}

const (
	stageImage = "image" // where the image is attached, below Stage.Dir
	stageWork  = "work"  // where the user mounts their tmpfs
)

// run calls f in the stage, on a thread of its own that ends with it. A
// process that f starts is born in the stage's mount namespace and keeps it.
// It needs root.
func (s *Stage) run(f func() error) error {
	return onThread(func() error {
		if err := s.enter(); err != nil {
			return err
		}
		return f()
	})
}

func (s *Stage) enter() error {
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return os.NewSyscallError("unshare(CLONE_FS)", err)
	}
	if s.View != nil {
		if err := checkHostMountNamespace(s.View); err != nil {
			return fmt.Errorf("the job's mount namespace: %w", err)
		}
		if err := unix.Setns(int(s.View.Fd()), unix.CLONE_NEWNS); err != nil {
			return os.NewSyscallError("setns of the job's mount namespace", err)
		}
	}
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return os.NewSyscallError("unshare(CLONE_NEWNS)", err)
	}
	// Slave: what the node mounts later (autofs, /cvmfs) still appears; what
	// happens here never reaches the node.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return os.NewSyscallError("mount(MS_SLAVE)", err)
	}
	return s.attach()
}

func (s *Stage) attach() error {
	const flags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	if err := unix.Mount("tmpfs", s.Dir, "tmpfs", flags, "mode=0755,size=64k"); err != nil {
		return fmt.Errorf("cover %s: %w", s.Dir, err)
	}
	for _, d := range []string{stageImage, stageWork} {
		if err := os.Mkdir(filepath.Join(s.Dir, d), 0o755); err != nil {
			return err
		}
	}
	if s.Image == nil {
		return nil
	}
	err := unix.MoveMount(int(s.Image.Fd()), "", unix.AT_FDCWD, filepath.Join(s.Dir, stageImage), unix.MOVE_MOUNT_F_EMPTY_PATH)
	return os.NewSyscallError("move_mount of the image", err)
}

// IDMap makes the files that root owns on disk belong to the user of ns, and
// says whether the kernel could: squashfs can from Linux 6.2 on. Without it
// they keep their owner, who is not mapped in the container and appears as
// nobody. mount is detached (Mounts.CloneImage), ns is UserNamespaces.Outer.
func IDMap(mount, ns *os.File) (bool, error) {
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(ns.Fd())}
	err := unix.MountSetattr(int(mount.Fd()), "", unix.AT_EMPTY_PATH, &attr)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EOPNOTSUPP) {
		return false, nil
	}
	return err == nil, os.NewSyscallError("mount_setattr(MOUNT_ATTR_IDMAP)", err)
}
