// Package sandbox shuts the calling process in before it reads bytes that a
// stranger chose: layers, or a squashfs file that was made of them.
//
// Root starts the process in namespaces of its own (Attributes). The process
// sets itself up while it is root and has read nothing yet (Enter):
//
//	root_linux.go     a root of its own: an empty tmpfs, and what Cell names
//	identity_linux.go the account's ids, no groups, no capabilities, limits
//	calls_linux.go    a seccomp filter, and no new privileges for all threads
//
// What is left cannot reach the network, see a file or a process of the
// machine, or get rights back. It can write to the folder that Cell names and
// to the descriptors that it inherited.
package sandbox

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// A Cell says what the process keeps. Inherited descriptors stay open; none of
// them may be a folder's, through which one could leave.
type Cell struct {
	// UID and GID are who it becomes; neither may be root's.
	UID, GID uint32
	// Base is an existing folder that is covered while the root is made, in
	// the process's own mount namespace.
	Base string
	// Work is the path of a folder that appears as WorkDir, writable; "" for
	// none. Only root may be able to change the path.
	Work string
	// Programs shows the system's programs and libraries, read-only, and
	// allows to execute them.
	Programs bool
	// FileSize, Memory (of address space) and CPU (in seconds) are limits of
	// the process; 0 means none.
	FileSize, Memory, CPU uint64
}

// WorkDir is where Cell.Work appears.
const WorkDir = "/work"

// Attributes are those with which root starts a process that is to Enter a
// Cell: the first in namespaces of its own, and ended with its parent's thread.
func Attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS,
		Pdeathsig:  unix.SIGKILL,
		Setsid:     true,
	}
}

// Enter shuts the process in. After an error it must end: parts may have been
// done. It refuses where the process is not the first of its pid namespace,
// which is the sign that it was not started with Attributes.
func Enter(c Cell) error {
	if os.Getpid() != 1 || os.Getuid() != 0 {
		return errors.New("enter sandbox: only for what root starts in namespaces of its own")
	}
	if c.UID == 0 || c.GID == 0 {
		return errors.New("enter sandbox: not as root")
	}
	for _, step := range []struct {
		name string
		do   func(Cell) error
	}{
		{"make a root of its own", newRoot},
		{"limit the process", limit},
		{"become the account", become},
		{"forbid system calls", forbid},
	} {
		if err := step.do(c); err != nil {
			return fmt.Errorf("enter sandbox: %s: %w", step.name, err)
		}
	}
	return nil
}
