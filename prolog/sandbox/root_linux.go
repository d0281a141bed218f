package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// systemFolders hold programs and what they link. On systems with a merged
// /usr all but one are symbolic links.
var systemFolders = []string{"usr", "bin", "sbin", "lib", "lib32", "lib64"}

// newRoot makes c.Base the root of the mount namespace, and lets go of what
// was there before.
func newRoot(c Cell) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return os.NewSyscallError("make mounts private", err)
	}
	const flags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	if err := unix.Mount("tmpfs", c.Base, "tmpfs", flags, "mode=0755,size=64k"); err != nil {
		return fmt.Errorf("mount tmpfs on %s: %w", c.Base, err)
	}
	if err := showWork(c); err != nil {
		return fmt.Errorf("show the work folder: %w", err)
	}
	if c.Programs {
		if err := showSystem(c.Base); err != nil {
			return fmt.Errorf("show the system's programs: %w", err)
		}
	}
	if err := pivot(c.Base); err != nil {
		return err
	}
	return setAttributes("/", 0, unix.MOUNT_ATTR_RDONLY)
}

func showWork(c Cell) error {
	if c.Work == "" {
		return nil
	}
	to := filepath.Join(c.Base, WorkDir)
	if err := bind(c.Work, to, 0); err != nil {
		return err
	}
	return setAttributes(to, 0, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
}

// bind shows the folder from at to, which it makes.
func bind(from, to string, recursive uintptr) error {
	if err := os.Mkdir(to, 0o755); err != nil {
		return err
	}
	return os.NewSyscallError("bind "+from, unix.Mount(from, to, "", unix.MS_BIND|recursive, ""))
}

func setAttributes(path string, recursive uint, flags uint64) error {
	attr := unix.MountAttr{Attr_set: flags}
	return os.NewSyscallError("mount_setattr", unix.MountSetattr(unix.AT_FDCWD, path, recursive, &attr))
}

// showSystem shows the folders of programs under their names, and /dev/null.
func showSystem(base string) error {
	if err := showNull(filepath.Join(base, "dev")); err != nil {
		return err
	}
	for _, name := range systemFolders {
		from, to := "/"+name, filepath.Join(base, name)
		info, err := os.Lstat(from)
		switch {
		case errors.Is(err, os.ErrNotExist):
			continue
		case err == nil && info.Mode()&os.ModeSymlink != 0:
			err = copyLink(from, to)
		case err == nil:
			err = showFolder(from, to)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// showNull shows the one device that programs expect.
func showNull(dev string) error {
	null := filepath.Join(dev, "null")
	if err := errors.Join(os.Mkdir(dev, 0o755), os.WriteFile(null, nil, 0o600)); err != nil {
		return err
	}
	return os.NewSyscallError("bind /dev/null", unix.Mount("/dev/null", null, "", unix.MS_BIND, ""))
}

func copyLink(from, to string) error {
	target, err := os.Readlink(from)
	if err != nil {
		return err
	}
	return os.Symlink(target, to)
}

func showFolder(from, to string) error {
	if err := bind(from, to, unix.MS_REC); err != nil {
		return err
	}
	return setAttributes(to, unix.AT_RECURSIVE, unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV)
}

// pivot makes dir the root. The old one comes to lie over it and is let go of
// (pivot_root(2), "pivot_root(".", ".")").
func pivot(dir string) error {
	if err := os.Chdir(dir); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return os.NewSyscallError("pivot_root", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return os.NewSyscallError("umount", err)
	}
	return os.Chdir("/")
}
