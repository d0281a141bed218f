package join

// #include "ready.h"
import "C"

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// A folder is the user's private one with the sockets of holders.
type folder struct{ *os.File }

func openFolder(create bool) (folder, error) {
	fd := C.ready_folder(C.bool(create))
	if fd < 0 {
		return folder{}, fmt.Errorf("%w: no folder for sockets", ErrNotReady)
	}
	return folder{os.NewFile(uintptr(fd), "ready")}, nil
}

// bind returns a socket under name that does not listen yet. Who connects
// before is refused, and makes a container of its own.
func (f folder) bind(name string) (*os.File, error) {
	_ = unix.Unlinkat(int(f.Fd()), name, 0) // of a holder that was killed
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	socket := os.NewFile(uintptr(fd), name)
	path := fmt.Sprintf("/proc/self/fd/%d/%s", f.Fd(), name)
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		socket.Close()
		return nil, os.NewSyscallError("bind", err)
	}
	return socket, nil
}

// end ends the holder of a name.
func (f folder) end(name string, pid int) {
	_ = unix.Unlinkat(int(f.Fd()), name, 0)
	if pid > 0 {
		_ = unix.Kill(pid, unix.SIGTERM) // it answered a moment ago; it may be gone
	}
}

// EndAll ends what stands ready for this user, so that images are free, and
// says how many holders that were. What runs goes on.
func EndAll() (ended int) {
	f, err := openFolder(false)
	if err != nil {
		return 0
	}
	defer f.Close()
	names, _ := f.Readdirnames(-1)
	for _, name := range names {
		pid := f.holder(name)
		f.end(name, pid)
		if pid > 0 {
			ended++
		}
	}
	return ended
}

// holder is the process behind a name, 0 for none.
func (f folder) holder(name string) int {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return 0
	}
	defer unix.Close(fd)
	if unix.Connect(fd, &unix.SockaddrUnix{Name: fmt.Sprintf("/proc/self/fd/%d/%s", f.Fd(), name)}) != nil {
		return 0
	}
	peer, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil || peer.Uid != uint32(os.Geteuid()) {
		return 0
	}
	return int(peer.Pid)
}
