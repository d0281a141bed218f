package cluster

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// A Process is one of a machine's, as the host sees it.
type Process struct {
	Dir  string // its folder in the host's /proc
	Name string // what the kernel calls it, at most 15 bytes
}

// PID is its number on the host.
func (p Process) PID() int {
	pid, _ := strconv.Atoi(filepath.Base(p.Dir))
	return pid
}

// Args is its command line; nil once it has ended.
func (p Process) Args() []string {
	text, err := os.ReadFile(filepath.Join(p.Dir, "cmdline"))
	if err != nil || len(text) == 0 {
		return nil
	}
	var args []string
	for arg := range bytes.SplitSeq(bytes.TrimSuffix(text, []byte{0}), []byte{0}) {
		args = append(args, string(arg))
	}
	return args
}

// Signal sends a signal to the process, and to no other that got its number
// meanwhile: the folder that was found is the process. That it has ended is no
// error.
func (p Process) Signal(sig unix.Signal) error {
	pidfd, err := unix.PidfdOpen(p.PID(), 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return os.NewSyscallError("pidfd_open", err)
	}
	defer unix.Close(pidfd)
	if name, err := os.ReadFile(filepath.Join(p.Dir, "comm")); err != nil || strings.TrimSpace(string(name)) != p.Name {
		return nil
	}
	if err := unix.PidfdSendSignal(pidfd, sig, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return os.NewSyscallError("pidfd_send_signal", err)
	}
	return nil
}

// PID is process number 1 of a machine, as the host numbers it.
func (c *Cluster) PID(machine string) string {
	c.t.Helper()
	text, err := os.ReadFile(filepath.Join(c.Dir, "machines", machine, "pid"))
	if err != nil {
		c.t.Fatal(err)
	}
	return strings.Fields(string(text))[0]
}

// Processes finds those in a machine's pid namespace, or in one within it. A
// machine that is off has none.
func (c *Cluster) Processes(machine string) []Process {
	c.t.Helper()
	own, err := os.Stat("/proc/" + c.PID(machine) + "/ns/pid")
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		c.t.Fatal(err)
	}
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		c.t.Fatal(err)
	}
	var found []Process
	for _, dir := range dirs {
		name, err := os.ReadFile(dir + "/comm")
		if err == nil && within(dir+"/ns/pid", own) {
			found = append(found, Process{dir, strings.TrimSpace(string(name))})
		}
	}
	return found
}

// within says whether a pid namespace is own or below it.
func within(path string, own fs.FileInfo) bool {
	ns, err := os.Open(path)
	for err == nil {
		var info fs.FileInfo
		if info, err = ns.Stat(); err == nil && os.SameFile(info, own) {
			ns.Close()
			return true
		}
		// EPERM above our own namespace.
		parent, ioctlErr := unix.IoctlRetInt(int(ns.Fd()), unix.NS_GET_PARENT)
		ns.Close()
		if ioctlErr != nil {
			return false
		}
		ns = os.NewFile(uintptr(parent), path)
	}
	return false
}
