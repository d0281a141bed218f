package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/imagecache/store"
	"golang.org/x/sys/unix"
)

// fuseMissing says why this user can't mount an image here, nil when they can.
func fuseMissing() error {
	if err := unix.Access("/dev/fuse", unix.R_OK|unix.W_OK); err != nil {
		return fmt.Errorf("/dev/fuse: %w", err)
	}
	_, err := exec.LookPath("squashfuse_ll")
	return err
}

// unpacked returns the folder with the files of image, a complete tree: it is
// unpacked beside the store's images the first time. This costs several times
// the image's size on disk, so it is only for machines where users can't
// mount.
func (s *session) unpacked(ctx context.Context, image store.Image, space *store.Space, missing error) (string, error) {
	images, tree := space.Store, image.Tree()
	if _, err := os.Lstat(tree); err == nil {
		return tree, nil
	}
	lock, err := images.Lock(ctx, image.Digest(), func() { s.log.Info("waiting for another process that unpacks this image") })
	if err != nil {
		return "", err
	}
	defer func() { _ = lock.Release() }() // the tree stands; the kernel drops the lock in any case
	if _, err := os.Lstat(tree); err == nil {
		return tree, nil
	}
	record, err := image.Record()
	if err != nil {
		return "", err
	}
	if err := space.Reserve(ctx, lock, record.Uncompressed); err != nil {
		return "", err
	}
	s.log.Warnf("unpacking the image to %s, because images can't be mounted here (%v)", tree, missing)
	return tree, fault.Wrap("unpack image", image.Digest().String(), fault.Site,
		"make room in "+images.Root()+", or have FUSE made available: then nothing is unpacked", unpack(ctx, lock, image))
}

// unpack makes the image's tree appear complete or not at all.
func unpack(ctx context.Context, lock *store.Lock, image store.Image) error {
	work, err := lock.TempDir(os.Geteuid(), os.Getegid())
	if err != nil {
		return err
	}
	part := filepath.Join(work, "tree")
	program, err := exec.LookPath("unsquashfs")
	if err == nil {
		err = unsquash(ctx, program, part, image.Rootfs())
	}
	if err != nil {
		if errors.Is(err, exec.ErrNotFound) {
			return &fault.Error{
				Op: "unpack image", Arg: image.Digest().String(), Blame: fault.Site, Err: err,
				Remedy: "install the squashfs-tools package",
			}
		}
		return err
	}
	return lock.PublishTree(part, image)
}

// unsquash unpacks an image with the modes that it has: unsquashfs applies the
// umask, unless root runs it.
func unsquash(ctx context.Context, program, to, image string) error {
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", `umask 0 && exec "$@"`, "sh", program, "-no-progress", "-quiet", "-dest", to, image)
	// An orphan would go on writing into a folder that is swept. The signal is
	// sent when the thread that forked ends.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("unsquashfs: %w: %s", err, lastLine(string(out)))
	}
	return nil
}

func lastLine(text string) string {
	text = strings.TrimSpace(text)
	return text[strings.LastIndexByte(text, '\n')+1:]
}
