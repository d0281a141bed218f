package doctor

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// scratch covers /tmp of the calling part, which has a mount namespace of its
// own, with a tmpfs, and returns a folder in it.
func scratch(name string) (string, error) {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return "", fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("tmpfs", os.TempDir(), "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755,size=1m"); err != nil {
		return "", fmt.Errorf("mount a tmpfs: %w", err)
	}
	dir := filepath.Join(os.TempDir(), name)
	return dir, os.Mkdir(dir, 0o755)
}

// layers makes the folders of an overlay and returns where they are.
func layers() (string, error) {
	dir, err := scratch("layers")
	if err != nil {
		return "", err
	}
	for _, d := range []string{"lower", "lower/folder", "points", "upper", "work", "merged"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			return "", err
		}
	}
	return dir, nil
}

// checkOverlay mounts what every container is: an overlay of lower layers.
func checkOverlay(context.Context, *Node) []Finding {
	dir, err := layers()
	if err != nil {
		// Ubuntu 24.04's AppArmor lets users make a namespace without rights.
		return one(Fail, "a user's namespace gives no right to mount: "+oneLine(err), ForbiddenNamespaces().Remedy)
	}
	options := fmt.Sprintf("lowerdir=%s/points:%s/lower", dir, dir)
	if err := unix.Mount("overlay", dir+"/merged", "overlay", unix.MS_NOSUID|unix.MS_NODEV, options); err != nil {
		return one(Fail, "users can't mount it in their namespaces, and no container can be assembled without: "+oneLine(err),
			"modprobe overlay; a kernel with overlay in user namespaces has it from Linux 5.11 on")
	}
	return good("users can mount it")
}

// checkOpaque replaces a folder of the image in a writable overlay: that takes
// an extended attribute, which not every tmpfs keeps for users.
func checkOpaque(context.Context, *Node) []Finding {
	dir, err := layers()
	if err != nil {
		return nil // told by checkOverlay
	}
	options := fmt.Sprintf("lowerdir=%s/lower,upperdir=%s/upper,workdir=%s/work,userxattr", dir, dir, dir)
	err = unix.Mount("overlay", dir+"/merged", "overlay", unix.MS_NOSUID|unix.MS_NODEV, options)
	if err != nil {
		return one(Warn, "no writable overlay for users; --container-writable fails, read-only containers work: "+oneLine(err),
			"a kernel with the overlay option userxattr (Linux 5.11)")
	}
	folder := dir + "/merged/folder"
	if err = os.Remove(folder); err == nil {
		err = os.Mkdir(folder, 0o755)
	}
	if err == nil {
		err = unix.Setxattr(dir+"/upper", "user.berth.doctor", []byte("y"), 0)
	}
	if err != nil {
		return one(Warn, "tmpfs keeps no user attributes ("+oneLine(err)+"): changes go to container.scratch, and where that can't be used, programs that remove a folder of the image and make it anew fail",
			"nothing need be done where container.scratch is on a local disk; a kernel with user attributes on tmpfs has them from Linux 6.6 on (CONFIG_TMPFS_XATTR)")
	}
	return good("folders of the image can be replaced")
}

// checkFilter asks for the kind of seccomp filter that lets installers run for
// users who appear as root.
func checkFilter(context.Context, *Node) []Finding {
	action := uint32(unix.SECCOMP_RET_ERRNO)
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_GET_ACTION_AVAIL, 0, uintptr(unsafe.Pointer(&action)))
	if errno != 0 {
		return one(Warn, "no seccomp filters for users ("+errno.Error()+"): packages that change owners can't be installed with --container-remap-root",
			"a kernel with CONFIG_SECCOMP_FILTER, outside of sandboxes that forbid seccomp")
	}
	return good("calls that need another id can be made to succeed")
}

// checkFUSE mounts an empty connection as the container of a user does.
func checkFUSE(context.Context, *Node) []Finding {
	const falls = "berth run unpacks images instead, and writable containers on kernels without idmapped squashfs fail"
	dev, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		return one(Warn, "users can't open it ("+oneLine(err)+"): "+falls, "modprobe fuse && chmod 0666 /dev/fuse (udev's rule does)")
	}
	defer dev.Close()
	dir, err := scratch("fuse")
	if err != nil {
		return nil // told by checkOverlay
	}
	data := fmt.Sprintf("fd=%d,rootmode=40000,user_id=%d,group_id=%d", dev.Fd(), os.Getuid(), os.Getgid())
	if err := unix.Mount("berth", dir, "fuse", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_RDONLY, data); err != nil {
		return one(Warn, "users can't mount it ("+oneLine(err)+"): "+falls, "a kernel with FUSE in user namespaces (Linux 4.18)")
	}
	// Nobody serves it: looking at it would wait for ever.
	_ = syscall.Unmount(dir, unix.MNT_DETACH)
	return good("users can mount with /dev/fuse")
}
