package launcher

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// ErrBadImage is the cause when the kernel finds no squashfs in a file, or a
// damaged one.
var ErrBadImage = errors.New("not a file system that the kernel can mount")

// mountSquashfs returns a detached mount of the squashfs file image. The loop
// device goes away with the last copy of the mount (autoclear); on an error
// nothing is left.
func mountSquashfs(ctx context.Context, image *os.File) (*os.File, error) {
	loop, err := attachLoop(ctx, image)
	if err != nil {
		return nil, fmt.Errorf("attach loop device: %w", err)
	}
	// The mount opens the device itself; without one, this close frees it.
	defer loop.Close()
	fsfd, err := unix.Fsopen("squashfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("fsopen(squashfs)", err)
	}
	fsctx := os.NewFile(uintptr(fsfd), "squashfs")
	defer fsctx.Close()
	if err := configure(fsfd, loop.Name()); err != nil {
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EIO) {
			err = fmt.Errorf("%w: %w", ErrBadImage, err)
		}
		return nil, fmt.Errorf("configure squashfs on %s: %w", loop.Name(), withKernelLog(fsctx, err))
	}
	const attrs = unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV
	fd, err := unix.Fsmount(fsfd, unix.FSMOUNT_CLOEXEC, attrs)
	if err != nil {
		return nil, os.NewSyscallError("fsmount", err)
	}
	return os.NewFile(uintptr(fd), "image mount"), nil
}

func configure(fsfd int, device string) error {
	if err := unix.FsconfigSetString(fsfd, "source", device); err != nil {
		return err
	}
	if err := unix.FsconfigSetFlag(fsfd, "ro"); err != nil {
		return err
	}
	return unix.FsconfigCreate(fsfd)
}

// withKernelLog adds the words that a file system context holds about its
// failure: one message per read, "e TEXT" (fsopen(2)).
func withKernelLog(fsctx *os.File, err error) error {
	buf := make([]byte, 4096)
	n, rerr := unix.Read(int(fsctx.Fd()), buf)
	if rerr != nil || n == 0 {
		return err
	}
	return fmt.Errorf("%w: %q", err, buf[:n])
}

// attachLoop binds image to a free loop device, read-only and with autoclear.
func attachLoop(ctx context.Context, image *os.File) (*os.File, error) {
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer control.Close()
	for {
		loop, err := tryLoop(control, image)
		if !retryLoop(err) {
			return loop, err
		}
		if ctx.Err() != nil {
			return nil, fmt.Errorf("%w: %w", ctx.Err(), err)
		}
	}
}

// retryLoop tells the races of two that ask for a free device from failures:
// LOOP_CTL_GET_FREE reserves nothing (EBUSY at LOOP_CONFIGURE), and the device
// it named may have been removed since (ENOENT, ENXIO, ENODEV).
func retryLoop(err error) bool {
	return errors.Is(err, unix.EBUSY) || errors.Is(err, unix.ENXIO) || errors.Is(err, unix.ENODEV)
}

func tryLoop(control, image *os.File) (*os.File, error) {
	n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
	if err != nil {
		return nil, os.NewSyscallError("ioctl(LOOP_CTL_GET_FREE)", err)
	}
	loop, err := os.OpenFile(fmt.Sprintf("/dev/loop%d", n), os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	config := unix.LoopConfig{Fd: uint32(image.Fd())}
	config.Info.Flags = unix.LO_FLAGS_READ_ONLY | unix.LO_FLAGS_AUTOCLEAR
	if err := unix.IoctlLoopConfigure(int(loop.Fd()), &config); err != nil {
		loop.Close()
		return nil, os.NewSyscallError("ioctl(LOOP_CONFIGURE)", err)
	}
	return loop, nil
}
