package launcher

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// A Crowd is all processes in a user namespace and those below it, for root,
// who only looks.
type Crowd struct{ ns *os.File }

// NewCrowd refuses a namespace that is not below the caller's own: everything
// on the machine is in that one.
func NewCrowd(ns *os.File) (Crowd, error) {
	own, err := os.Open("/proc/self/ns/user")
	if err != nil {
		return Crowd{}, err
	}
	defer own.Close()
	if err := checkNSType(ns, unix.CLONE_NEWUSER); err != nil {
		return Crowd{}, err
	}
	parent, err := nsIoctlFile(ns, unix.NS_GET_PARENT)
	if err != nil {
		return Crowd{}, fmt.Errorf("not below the own user namespace: %w", err)
	}
	defer parent.Close()
	if sameNamespace(ns, own) == nil || sameNamespace(parent, own) != nil {
		return Crowd{}, errors.New("not a child of the own user namespace")
	}
	return Crowd{ns}, nil
}

// Has says whether a process is among them; false where it has ended, waited
// for or not: it has no mount namespace then.
func (c Crowd) Has(pid int) bool {
	if _, err := os.Readlink(procPath(pid, "ns/mnt")); err != nil {
		return false
	}
	current, err := os.Open(procPath(pid, "ns/user"))
	if err != nil {
		return false
	}
	for {
		if sameNamespace(current, c.ns) == nil {
			current.Close()
			return true
		}
		parent, err := nsIoctlFile(current, unix.NS_GET_PARENT)
		current.Close()
		if err != nil { // EPERM: above the caller's own
			return false
		}
		current = parent
	}
}

// Processes lists the processes of this machine, in no order.
func Processes() ([]int, error) {
	names, err := filepath.Glob("/proc/[0-9]*")
	var pids []int
	for _, name := range names {
		if pid, err := strconv.Atoi(filepath.Base(name)); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids, err
}
