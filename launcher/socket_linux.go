package launcher

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// maxPacket bounds what one side of a socket may make the other allocate.
const maxPacket = 1 << 20

// socketpair returns two ends of a SOCK_SEQPACKET socket, close-on-exec.
func socketpair() (ours, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	return os.NewFile(uintptr(fds[0]), "socket"), os.NewFile(uintptr(fds[1]), "socket"), nil
}

// sendFiles sends one packet with descriptors.
func sendFiles(sock *os.File, data []byte, files ...*os.File) error {
	fds := make([]int, len(files))
	for i, f := range files {
		fds[i] = int(f.Fd())
	}
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	return os.NewSyscallError("sendmsg", unix.Sendmsg(int(sock.Fd()), data, rights, nil, unix.MSG_NOSIGNAL))
}

// recvFiles receives one packet of at most size bytes and its descriptors
// (at most 8). io.EOF means that the other side is gone.
func recvFiles(sock *os.File, size int) ([]byte, []*os.File, error) {
	buf := make([]byte, size)
	oob := make([]byte, unix.CmsgSpace(8*4))
	n, oobn, flags, _, err := recvmsg(int(sock.Fd()), buf, oob)
	if err != nil {
		return nil, nil, os.NewSyscallError("recvmsg", err)
	}
	files, err := parseRights(oob[:oobn])
	if err != nil {
		return nil, nil, err
	}
	if flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
		closeAll(files)
		return nil, nil, fmt.Errorf("receive: message larger than %d bytes", size)
	}
	if n == 0 && len(files) == 0 {
		return nil, nil, io.EOF
	}
	return buf[:n], files, nil
}

func recvmsg(fd int, buf, oob []byte) (n, oobn, flags int, from unix.Sockaddr, err error) {
	for {
		n, oobn, flags, from, err = unix.Recvmsg(fd, buf, oob, unix.MSG_CMSG_CLOEXEC)
		if !errors.Is(err, unix.EINTR) {
			return n, oobn, flags, from, err
		}
	}
}

func parseRights(oob []byte) ([]*os.File, error) {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, fmt.Errorf("receive: %w", err)
	}
	var files []*os.File
	for i := range msgs {
		if msgs[i].Header.Type != unix.SCM_RIGHTS {
			continue
		}
		fds, err := unix.ParseUnixRights(&msgs[i])
		if err != nil {
			closeAll(files)
			return nil, fmt.Errorf("receive: %w", err)
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "received"))
		}
	}
	return files, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}
