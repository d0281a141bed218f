package main

import (
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// hiddenDescriptors are what this process got from its parent besides standard
// input, output and error. They are the command's; helpers that outlive this
// process, as an image's server does, would keep pipes open and files locked.
type hiddenDescriptors []int

// hideDescriptors keeps them from what is started until show is called.
func hideDescriptors() (hiddenDescriptors, error) {
	names, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return nil, err
	}
	var hidden hiddenDescriptors
	for _, name := range names {
		fd, err := strconv.Atoi(name.Name())
		if err != nil || fd <= 2 {
			continue
		}
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if err != nil || flags&unix.FD_CLOEXEC != 0 {
			continue // ours
		}
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, unix.FD_CLOEXEC); err != nil {
			return hidden, os.NewSyscallError("fcntl(F_SETFD)", err)
		}
		hidden = append(hidden, fd)
	}
	return hidden, nil
}

// show gives them to the program that this process becomes.
func (h hiddenDescriptors) show() error {
	for _, fd := range h {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0); err != nil {
			return os.NewSyscallError("fcntl(F_SETFD)", err)
		}
	}
	return nil
}
