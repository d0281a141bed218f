package credentials

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// HideMemory keeps what this process holds in memory from others, before it holds a
// secret: the kernel dumps no core of it, and nobody but root may trace it or
// read its /proc/PID/environ and mem. exec(2) ends that.
func HideMemory() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("make this process undumpable: %w", err)
	}
	return nil
}

// Guard is HideMemory for processes that become no other program; no core is dumped
// of those that they start either.
func Guard() error {
	if err := HideMemory(); err != nil {
		return err
	}
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("forbid core dumps: %w", err)
	}
	return nil
}

// ShowMemory undoes HideMemory while f runs: the kernel lets nobody but root
// write the user namespace's maps of a process that is forked from an
// undumpable one.
func ShowMemory(f func() error) error {
	dumpable, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	if err != nil || dumpable != 0 {
		return errors.Join(err, f())
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("make this process dumpable: %w", err)
	}
	err = f()
	return errors.Join(err, HideMemory())
}
