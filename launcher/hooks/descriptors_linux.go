package hooks

import (
	"math"

	"golang.org/x/sys/unix"
)

// keepDescriptors keeps all descriptors of this process, but for the standard
// ones, from the programs that it starts from now on. Some that libcontainer
// opens, and the channel to the process outside, are not closed by exec.
func keepDescriptors() {
	if unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC) != nil { // before Linux 5.11
		keepEach()
	}
}

// keepEach does so one by one; there may be no /proc to list them.
func keepEach() {
	for fd := uintptr(3); fd < 1<<16; fd++ {
		_, _ = unix.FcntlInt(fd, unix.F_SETFD, unix.FD_CLOEXEC) // EBADF: not open
	}
}
