package doctor

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"github.com/berth-hpc/berth/launcher"
	"golang.org/x/sys/unix"
)

// emptyImage is a squashfs with one empty folder, compressed as the store's
// images are: mksquashfs EMPTY empty.sqfs -comp zstd -all-root -all-time 0
// -mkfs-time 0 -noI -no-exports -nopad
//
//go:embed empty.sqfs
var emptyImage []byte

// loopBlock is what the image is padded to: a loop device has whole sectors.
const loopBlock = 4096

// checkCalls tries the system calls that containers need with arguments that
// no kernel accepts: one that knows the call says so by another error.
func checkCalls(context.Context, *Node) []Finding {
	const nowhere = -1
	var missing []string
	for _, c := range []struct {
		name string
		try  func() error
	}{
		{"openat2", func() error { _, err := unix.Openat2(nowhere, "x", &unix.OpenHow{}); return err }},
		{"open_tree", func() error { _, err := unix.OpenTree(nowhere, "x", 0); return err }},
		{"move_mount", func() error { return unix.MoveMount(nowhere, "x", nowhere, "x", 0) }},
		{"fsopen", func() error { _, err := unix.Fsopen("", 1<<30); return err }},
		{"mount_setattr", func() error { return unix.MountSetattr(nowhere, "x", 0, &unix.MountAttr{}) }},
		{"pidfd_open", func() error { _, err := unix.PidfdOpen(nowhere, 0); return err }},
		{"close_range", func() error { return unix.CloseRange(1<<30, 1<<30, 0) }},
	} {
		if err := c.try(); errors.Is(err, unix.ENOSYS) {
			missing = append(missing, c.name)
		}
	}
	if len(missing) > 0 {
		return one(Fail, "this kernel lacks "+strings.Join(missing, ", ")+", which image mounts need",
			"a newer kernel (all are in Linux 5.12 and RHEL 9's), or allow the calls in the container's seccomp profile")
	}
	return good("openat2, open_tree, move_mount, fsopen, mount_setattr, pidfd_open and close_range are there")
}

// checkLoop asks for a free loop device and opens it.
func checkLoop(context.Context, *Node) []Finding {
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return one(Fail, "no loop device for images: "+oneLine(err), "modprobe loop")
	}
	defer control.Close()
	n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
	if err != nil {
		return one(Fail, "no free loop device: "+oneLine(err), "detach unused ones: losetup -l, losetup -d; or raise max_loop")
	}
	device := fmt.Sprintf("/dev/loop%d", n)
	f, err := os.Open(device)
	if err != nil {
		return one(Fail, "the free loop device can't be opened: "+oneLine(err), "mount devtmpfs on /dev, so that "+device+" appears")
	}
	_ = f.Close() // opened to read
	return good(device + " is free")
}

// checkSquashfs mounts an image the way jobs get theirs, in namespaces that
// end with this process, and maps its owner.
func checkSquashfs(ctx context.Context, n *Node) []Finding {
	mount, err := mountEmpty(ctx)
	if err != nil {
		return one(Fail, "the kernel can't mount an image: "+oneLine(err),
			"modprobe squashfs loop; the kernel needs CONFIG_SQUASHFS and CONFIG_SQUASHFS_ZSTD")
	}
	defer mount.Close()
	found := good("the kernel mounts images")
	if !n.IDMap {
		return append(found, good("idmapped mounts are switched off (container.idmap): files of images belong to nobody")...)
	}
	mapped, err := mapOwner(ctx, mount)
	switch {
	case err != nil:
		return append(found, one(Warn, "idmapped mounts not tried: "+oneLine(err), "set container.idmap = false, unless jobs show files as the user's own")...)
	case !mapped:
		return append(found, one(Warn, "no idmapped mounts of squashfs: files of images belong to nobody, and writable containers use FUSE, which is slower",
			"nothing need be done; a kernel with idmapped squashfs has it from Linux 6.2 on")...)
	}
	return append(found, good("idmapped: files of images belong to the user")...)
}

func mountEmpty(ctx context.Context) (*os.File, error) {
	dir, err := scratch("run")
	if err != nil {
		return nil, err
	}
	fd, err := unix.MemfdCreate("empty.sqfs", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	image := os.NewFile(uintptr(fd), "empty.sqfs")
	defer image.Close()
	_, err = image.Write(emptyImage)
	if err = errors.Join(err, image.Truncate(loopBlock)); err != nil {
		return nil, err
	}
	mounts, err := launcher.OpenMounts(ctx, dir)
	if err != nil {
		return nil, err
	}
	defer mounts.Close()
	if err := mounts.MountImage(ctx, "empty", image); err != nil {
		return nil, err
	}
	return mounts.CloneImage("empty")
}

// mapOwner idmaps mount by the user namespace of a process started for that.
func mapOwner(ctx context.Context, mount *os.File) (bool, error) {
	cmd := command(ctx, []string{"/proc/self/exe"}, Wait) // its path may be covered here
	id := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 65534, Size: 1}}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER, UidMappings: id, GidMappings: id}
	hold, err := cmd.StdinPipe()
	if err != nil {
		return false, err
	}
	if err := cmd.Start(); err != nil {
		return false, err
	}
	defer func() { hold.Close(); _ = cmd.Wait() }()
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/user", cmd.Process.Pid))
	if err != nil {
		return false, err
	}
	defer ns.Close()
	return launcher.IDMap(mount, ns)
}
