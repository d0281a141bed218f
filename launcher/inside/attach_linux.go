package inside

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// In a user namespace libcontainer cannot mount the /proc that it would keep
// open: it copies the caller's for each look-up, several times per mount, which
// took a third of the time that a container took. So the mounts whose places
// stand before anything is mounted are made here, by the kernel's own look-up.

// attachBinds mounts binds on the assembled root file system, and returns those
// that are left to libcontainer, in their order.
func (r *rootfs) attachBinds(binds []bind) (left []bind, err error) {
	root, err := openPath(r.path)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	ours, left := split(binds)
	for i := range ours {
		if err := ours[i].mountBelow(root); err != nil {
			return nil, ours[i].cannotMount(err)
		}
	}
	return left, nil
}

// split leaves to libcontainer what lies in another mount, where it has to make
// the place; what that has to do with; what is to be shared, which it would undo
// in whatever is there before it begins; and /dev, which it fills itself unless
// it has a bind for it. Ours come first without changing what hides what.
func split(binds []bind) (ours, left []bind) {
	for _, b := range binds {
		if b.target == "/dev" || !b.keepsApart() || anyBelow(ours, b.target) || anyRelated(left, b.target) {
			left = append(left, b)
		} else {
			ours = append(ours, b)
		}
	}
	return ours, left
}

// keepsApart tells whether what is mounted in the container stays there.
func (b *bind) keepsApart() bool {
	kind := b.propagation &^ unix.MS_REC
	return kind == unix.MS_SLAVE || kind == unix.MS_PRIVATE
}

// anyBelow tells whether target is at or below one of the binds.
func anyBelow(binds []bind, target string) bool {
	for i := range binds {
		if within(target, binds[i].target) {
			return true
		}
	}
	return false
}

// anyRelated tells, besides, whether target is above one of them.
func anyRelated(binds []bind, target string) bool {
	for i := range binds {
		if within(binds[i].target, target) {
			return true
		}
	}
	return anyBelow(binds, target)
}

// mountBelow does what config asks libcontainer for. The kernel keeps the
// target within root, wherever links of the tree lead.
func (b *bind) mountBelow(root *os.File) error {
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	target, err := unix.Openat2(int(root.Fd()), strings.TrimPrefix(filepath.Clean(b.target), "/"), &how)
	if err != nil {
		return os.NewSyscallError("openat2", err)
	}
	defer unix.Close(target)
	mount, err := b.copyMount()
	if err != nil {
		return err
	}
	defer unix.Close(mount)
	return os.NewSyscallError("move_mount", unix.MoveMount(mount, "", target, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH))
}

// copyMount returns a detached copy of the source, with the bind's flags.
func (b *bind) copyMount() (int, error) {
	flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC)
	if !b.single {
		flags |= unix.AT_RECURSIVE
	}
	fd, err := unix.OpenTree(unix.AT_FDCWD, b.source, flags)
	if err != nil {
		return -1, os.NewSyscallError("open_tree", err)
	}
	if err := b.restrict(fd); err != nil {
		unix.Close(fd)
		return -1, os.NewSyscallError("mount_setattr", err)
	}
	return fd, nil
}

// restrict adds flags, and takes away none that the source has. Read-only is
// recursive, as propagation is: what is mounted below has it too.
func (b *bind) restrict(fd int) error {
	one := unix.MountAttr{Attr_set: attributes(b.flags)}
	if one.Attr_set != 0 {
		if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &one); err != nil {
			return err
		}
	}
	all := unix.MountAttr{Propagation: uint64(b.propagation &^ unix.MS_REC)}
	if b.readonly {
		all.Attr_set = unix.MOUNT_ATTR_RDONLY
	}
	flags := uint(unix.AT_EMPTY_PATH)
	if b.propagation&unix.MS_REC != 0 || b.readonly {
		flags |= unix.AT_RECURSIVE
	}
	return unix.MountSetattr(fd, "", flags, &all)
}

// attributes are mount_setattr(2)'s names for mount(2)'s flags of a bind.
func attributes(flags int) (set uint64) {
	for _, f := range []struct {
		flag int
		attr uint64
	}{
		{unix.MS_RDONLY, unix.MOUNT_ATTR_RDONLY},
		{unix.MS_NOSUID, unix.MOUNT_ATTR_NOSUID},
		{unix.MS_NODEV, unix.MOUNT_ATTR_NODEV},
		{unix.MS_NOEXEC, unix.MOUNT_ATTR_NOEXEC},
	} {
		if flags&f.flag != 0 {
			set |= f.attr
		}
	}
	return set
}

// cannotMount makes a failed mount of the user's an error of the user's.
func (b *bind) cannotMount(err error) error {
	if b.by == byUser {
		return userError(fmt.Sprintf("mount target %s: %v", b.target, err), "choose another target")
	}
	return fmt.Errorf("mount %s: %w", b.target, err)
}
