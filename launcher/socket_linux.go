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

// A Packet is one received message. Sender is the kernel's word on who sent
// it, when the socket has SO_PASSCRED (unix(7)).
type Packet struct {
	Data   []byte
	Files  []*os.File
	Sender *unix.Ucred
}

// SendPacket sends one packet with descriptors. It never raises SIGPIPE.
func SendPacket(sock *os.File, data []byte, files ...*os.File) error {
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

// ReceivePacket receives one packet of at most size bytes and at most 8
// descriptors. io.EOF means that the other side is gone.
func ReceivePacket(sock *os.File, size int) (*Packet, error) {
	buf := make([]byte, size)
	oob := make([]byte, unix.CmsgSpace(8*4)+unix.CmsgSpace(unix.SizeofUcred))
	n, oobn, flags, err := recvmsg(int(sock.Fd()), buf, oob)
	if err != nil {
		return nil, os.NewSyscallError("recvmsg", err)
	}
	p := &Packet{Data: buf[:n]}
	if err := p.parse(oob[:oobn]); err != nil {
		closeAll(p.Files)
		return nil, fmt.Errorf("receive: %w", err)
	}
	if flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
		closeAll(p.Files)
		return nil, fmt.Errorf("receive: message larger than %d bytes", size)
	}
	if n == 0 {
		closeAll(p.Files)
		return nil, io.EOF
	}
	return p, nil
}

func recvmsg(fd int, buf, oob []byte) (n, oobn, flags int, err error) {
	for {
		n, oobn, flags, _, err = unix.Recvmsg(fd, buf, oob, unix.MSG_CMSG_CLOEXEC)
		if !errors.Is(err, unix.EINTR) {
			return n, oobn, flags, err
		}
	}
}

func (p *Packet) parse(oob []byte) error {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return err
	}
	for i := range msgs {
		switch msgs[i].Header.Type {
		case unix.SCM_RIGHTS:
			fds, err := unix.ParseUnixRights(&msgs[i])
			if err != nil {
				return err
			}
			for _, fd := range fds {
				p.Files = append(p.Files, os.NewFile(uintptr(fd), "received"))
			}
		case unix.SCM_CREDENTIALS:
			if p.Sender, err = unix.ParseUnixCredentials(&msgs[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}
