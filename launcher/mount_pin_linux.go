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

// A Pin is a namespace with the name it is pinned under.
type Pin struct {
	Name string
	NS   *os.File
}

// Pin keeps the namespaces of a job alive until Unpin, all or none. Of
// concurrent callers one wins and the others get fs.ErrExist: those open what
// the winner pinned, so that all containers of the job share it.
func (m *Mounts) Pin(ctx context.Context, job string, pins ...Pin) error {
	if err := checkPinNames(job, pins); err != nil {
		return err
	}
	return m.change(ctx, func() error { return bindPins(filepath.Join(pinsDir, job), pins) })
}

// OpenPin opens a pinned namespace; fs.ErrNotExist when there is none.
func (m *Mounts) OpenPin(job, name string) (*os.File, error) {
	if err := checkPinNames(job, []Pin{{Name: name}}); err != nil {
		return nil, err
	}
	var ns *os.File
	err := m.within(func() (err error) {
		path := filepath.Join(pinsDir, job, name)
		if !isMountRoot(path) {
			return &os.PathError{Op: "open pin", Path: path, Err: fs.ErrNotExist}
		}
		ns, err = os.Open(path)
		return err
	})
	return ns, err
}

// Unpin lets go of all namespaces of a job. A job without any is no error.
func (m *Mounts) Unpin(ctx context.Context, job string) error {
	if err := checkMountName(job); err != nil {
		return err
	}
	return m.change(ctx, func() error { return unbindPins(filepath.Join(pinsDir, job)) })
}

// PinnedJobs lists the jobs that have pins.
func (m *Mounts) PinnedJobs() ([]string, error) {
	var jobs []string
	err := m.within(func() error {
		entries, err := os.ReadDir(pinsDir)
		for _, e := range entries {
			jobs = append(jobs, e.Name())
		}
		return err
	})
	return jobs, err
}

func checkPinNames(job string, pins []Pin) error {
	err := checkMountName(job)
	for _, p := range pins {
		err = errors.Join(err, checkMountName(p.Name))
	}
	return err
}

// bindPins binds all pins in the folder dir. What a killed process left
// unfinished is thrown away: nobody used it, because users wait for all.
func bindPins(dir string, pins []Pin) error {
	complete := true
	for _, p := range pins {
		complete = complete && isMountRoot(filepath.Join(dir, p.Name))
	}
	if complete {
		return &os.PathError{Op: "pin", Path: dir, Err: fs.ErrExist}
	}
	if err := unbindPins(dir); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	for _, p := range pins {
		if err := bindPin(p.NS, filepath.Join(dir, p.Name)); err != nil {
			return errors.Join(fmt.Errorf("pin %s: %w", p.Name, err), unbindPins(dir))
		}
	}
	return nil
}

// bindPin binds a namespace by its descriptor: this namespace has no /proc.
func bindPin(ns *os.File, path string) error {
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		return err
	}
	fd, err := unix.OpenTree(int(ns.Fd()), "", unix.AT_EMPTY_PATH|unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return os.NewSyscallError("open_tree of a namespace", err)
	}
	mount := os.NewFile(uintptr(fd), path)
	defer mount.Close()
	return moveMount(mount, path)
}

func unbindPins(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if isMountRoot(path) {
			err = errors.Join(err, unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW))
		}
		err = errors.Join(err, os.Remove(path))
	}
	return errors.Join(err, os.Remove(dir))
}
