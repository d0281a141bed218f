package credentials

import (
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
