package lend

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/launcher"
	"github.com/berth-hpc/berth/launcher/wire"
	"golang.org/x/sys/unix"
)

// A Loan is a container of the node's. Its image stays mounted for as long as
// a process is in it.
type Loan struct {
	Users     *launcher.UserNamespaces
	Container *launcher.Container
	Config    *os.File // the image's config as the store keeps it
}

// Close releases the descriptors.
func (l *Loan) Close() {
	l.Users.Close()
	l.Container.Close()
	l.Config.Close()
}

// Borrow asks at the socket path, as the user. The error is the node's answer,
// a fault, or that nobody of root's answers there.
func Borrow(ctx context.Context, path string, r Request) (*Loan, error) {
	data, err := r.message().Encode()
	if err != nil {
		return nil, err
	}
	sock, err := connect(path)
	if err != nil {
		return nil, err
	}
	defer sock.Close()
	stop := context.AfterFunc(ctx, func() { _ = sock.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	view, err := os.Open("/proc/self/ns/mnt")
	if err != nil {
		return nil, err
	}
	defer view.Close()
	if err := launcher.SendPacket(sock, data, view); err != nil {
		return nil, err
	}
	p, err := launcher.ReceivePacket(sock, wire.MaxMessage)
	if err != nil {
		return nil, fmt.Errorf("ask the node: %w", err)
	}
	return newLoan(p)
}

// connect refuses a socket at which somebody else than root listens.
func connect(path string) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	// A full queue of connections is no reason to wait: the user pulls instead.
	patience := unix.Timeval{Sec: 1}
	err = errors.Join(unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &patience),
		os.NewSyscallError("connect", unix.Connect(fd, &unix.SockaddrUnix{Name: path})))
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	peer, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil || peer.Uid != 0 {
		unix.Close(fd)
		return nil, fmt.Errorf("%s is not root's", path)
	}
	return launcher.NewSocket(fd)
}

func newLoan(p *launcher.Packet) (*Loan, error) {
	m, err := wire.Decode(p.Data)
	if err != nil {
		closeFiles(p.Files)
		return nil, err
	}
	if text := m.Get("error"); text != "" || len(p.Files) != loanFiles {
		closeFiles(p.Files)
		if text == "" {
			return nil, fmt.Errorf("the node answered with %d descriptors", len(p.Files))
		}
		return nil, (&fault.Message{Text: text, Remedy: m.Get("remedy"), Blame: m.Get("blame")}).Err()
	}
	return &Loan{
		Users:     &launcher.UserNamespaces{Outer: p.Files[0], Inner: p.Files[1]},
		Container: &launcher.Container{Mount: p.Files[2], Result: p.Files[3]},
		Config:    p.Files[4],
	}, nil
}

// loanFiles is how many descriptors a loan is.
const loanFiles = 5

func closeFiles(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}
