package credentials

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Guard keeps what this process holds in memory from others, before it holds a
// secret: no core dump of it or of its children, and nobody but root may trace
// it or read its /proc/PID/environ and mem. exec(2) ends the latter for the
// program that is executed, so this is also for processes that start helpers,
// but not for those that make user namespaces: the kernel refuses them the
// maps.
func Guard() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("make this process undumpable: %w", err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("forbid core dumps: %w", err)
	}
	return nil
}
