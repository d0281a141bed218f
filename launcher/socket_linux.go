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
	// Only our end: the other one goes to a program that expects to block.
	if ours, err = NewSocket(fds[0]); err != nil {
		unix.Close(fds[0])
		unix.Close(fds[1])
		return nil, nil, err
	}
	return ours, os.NewFile(uintptr(fds[1]), "socket"), nil
}

// NewSocket makes a file of a socket for SendPacket and ReceivePacket. It
// makes the socket non-blocking, so that the runtime waits for it without a
// thread: a goroutine in a blocking system call keeps its processor until the
// runtime takes it away, after up to 10 ms, which a step's start would feel.
func NewSocket(fd int) (*os.File, error) {
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, os.NewSyscallError("fcntl(O_NONBLOCK)", err)
	}
	return os.NewFile(uintptr(fd), "socket"), nil
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
	conn, err := sock.SyscallConn()
	if err != nil {
		return err
	}
	var serr error
	err = conn.Write(func(fd uintptr) bool {
		serr = unix.Sendmsg(int(fd), data, rights, nil, unix.MSG_NOSIGNAL)
		return !errors.Is(serr, unix.EAGAIN)
	})
	return errors.Join(err, os.NewSyscallError("sendmsg", serr))
}

// ReceivePacket receives one packet of at most size bytes and at most 8
// descriptors. io.EOF means that the other side is gone.
func ReceivePacket(sock *os.File, size int) (*Packet, error) {
	// A packet is mostly far smaller than what it may be, and new memory costs
	// more than a look.
	next, _, _, err := recvmsg(sock, nil, nil, unix.MSG_PEEK|unix.MSG_TRUNC)
	if err != nil {
		return nil, err
	}
	buf := make([]byte, max(1, min(next, size)))
	oob := make([]byte, unix.CmsgSpace(8*4)+unix.CmsgSpace(unix.SizeofUcred))
	n, oobn, flags, err := recvmsg(sock, buf, oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return nil, err
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

// recvmsg waits with the runtime's poller for a socket of NewSocket, and blocks
// for any other.
func recvmsg(sock *os.File, buf, oob []byte, how int) (n, oobn, flags int, err error) {
	conn, err := sock.SyscallConn()
	if err != nil {
		return 0, 0, 0, err
	}
	var rerr error
	err = conn.Read(func(fd uintptr) bool {
		for {
			n, oobn, flags, _, rerr = unix.Recvmsg(int(fd), buf, oob, how)
			if !errors.Is(rerr, unix.EINTR) {
				return !errors.Is(rerr, unix.EAGAIN)
			}
		}
	})
	return n, oobn, flags, errors.Join(err, os.NewSyscallError("recvmsg", rerr))
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
				p.Files = append(p.Files, received(fd))
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

// received is a file of a descriptor that came in a packet; a socket becomes
// one for ReceivePacket.
func received(fd int) *os.File {
	var st unix.Stat_t
	if unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFSOCK {
		if f, err := NewSocket(fd); err == nil {
			return f
		}
	}
	return os.NewFile(uintptr(fd), "received")
}
