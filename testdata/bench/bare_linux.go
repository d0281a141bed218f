package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/launcher"
	"github.com/berth-hpc/berth/launcher/wire"
)

// runBare takes the place of `berth-create inside` (package launcher/inside):
// it makes a container whose root is the image's tree itself, without
// overlay and mount points. Everything else is as in Berth's: the same user
// namespaces, the same stage, the same way in. So a comparison sees the file
// system alone.
func runBare(channel *os.File) error {
	req, _, err := launcher.ReceiveRequest(channel) // without a config
	if err != nil {
		return err
	}
	ns, err := os.Open("/proc/self/ns/mnt")
	if err != nil {
		return err
	}
	defer ns.Close()
	if err := pivotInto(req); err != nil {
		reply := &launcher.Reply{Failure: fault.NewMessage(err)}
		return errors.Join(err, launcher.SendReply(channel, reply))
	}
	result, err := emptyResult()
	if err != nil {
		return err
	}
	defer result.Close()
	return launcher.SendReply(channel, &launcher.Reply{Ready: true}, ns, result)
}

// pivotInto makes the image the root. It is bound once more first: the
// mount that root made is locked, and pivot_root(2) refuses it.
func pivotInto(req *launcher.Request) error {
	bind := func(source, target string) error {
		err := unix.Mount(source, target, "", unix.MS_BIND|unix.MS_REC, "")
		if err != nil {
			return fmt.Errorf("bind %s: %w", source, err)
		}
		return nil
	}
	if err := bind(req.Image.Path, req.Work); err != nil {
		return err
	}
	for _, dir := range []string{"/proc", "/sys", "/dev", "/tmp", "/var/tmp"} {
		if err := bind(dir, filepath.Join(req.Work, dir)); err != nil {
			return err
		}
	}
	if err := unix.Chdir(req.Work); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return os.NewSyscallError("pivot_root", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return os.NewSyscallError("umount of the old root", err)
	}
	return unix.Chdir("/")
}

// emptyResult tells tasks to start in / with the environment they have.
func emptyResult() (*os.File, error) {
	fd, err := unix.MemfdCreate("result", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), "result")
	data, err := wire.Message{{Key: "cwd", Value: "/"}}.Encode()
	if err == nil {
		_, err = f.Write(data)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
