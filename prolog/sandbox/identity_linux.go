package sandbox

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// maxFiles is how many descriptors the process may have open. It needs some
// ten.
const maxFiles = 256

// limit bounds what the process may use up. No core file may hold what was in
// its memory.
func limit(c Cell) error {
	limits := map[int]uint64{unix.RLIMIT_CORE: 0, unix.RLIMIT_NOFILE: maxFiles}
	for resource, most := range map[int]uint64{
		unix.RLIMIT_FSIZE: c.FileSize, unix.RLIMIT_AS: c.Memory, unix.RLIMIT_CPU: c.CPU,
	} {
		if most > 0 {
			limits[resource] = most
		}
	}
	for resource, most := range limits {
		if err := unix.Setrlimit(resource, &unix.Rlimit{Cur: most, Max: most}); err != nil {
			return fmt.Errorf("setrlimit %d: %w", resource, err)
		}
	}
	return nil
}

// become gives up root for all threads, and with it every capability. Nobody
// may trace the process afterwards, also not as the same user.
func become(c Cell) error {
	uid, gid := int(c.UID), int(c.GID)
	err := errors.Join(syscall.Setgroups(nil), syscall.Setresgid(gid, gid, gid), syscall.Setresuid(uid, uid, uid))
	if err != nil {
		return err
	}
	if os.Getuid() != uid || os.Geteuid() != uid || os.Getgid() != gid {
		return errors.New("the ids did not change")
	}
	return os.NewSyscallError("prctl", unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0))
}
