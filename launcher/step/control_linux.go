package step

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/berth-hpc/berth/launcher"
	"github.com/berth-hpc/berth/launcher/wire"
	"golang.org/x/sys/unix"
)

// A control is the helper's end of the control socket. Only messages whose
// sender the kernel vouches to be root are taken: a task drops its copy of
// the socket before it becomes the user, and this is the second lock.
type control struct{ socket *os.File }

func newControl(socket *os.File) (*control, error) {
	// The plugin has set it already, before it sent anything.
	conn, err := socket.SyscallConn()
	if err != nil {
		return nil, err
	}
	var serr error
	err = conn.Control(func(fd uintptr) {
		serr = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PASSCRED, 1)
	})
	return &control{socket}, errors.Join(err, os.NewSyscallError("setsockopt(SO_PASSCRED)", serr))
}

// request receives the first message.
func (c *control) request() (*Request, error) {
	m, files, err := c.receive()
	if err != nil {
		return nil, fmt.Errorf("receive request: %w", err)
	}
	closeFiles(files)
	return parseRequest(m)
}

// accept takes the tasks as they come, until the other side is gone.
func (c *control) accept(tasks *tasks) error {
	for {
		m, files, err := c.receive()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		id, err := strconv.ParseUint(m.Get("task"), 10, 31)
		if err != nil || len(files) < 1 || len(files) > 2 {
			closeFiles(files)
			return fmt.Errorf("task message %q with %d descriptors", m, len(files))
		}
		tasks.add(int(id), files)
	}
}

func (c *control) receive() (wire.Message, []*os.File, error) {
	p, err := launcher.ReceivePacket(c.socket, wire.MaxMessage)
	if err != nil {
		return nil, nil, err
	}
	if p.Sender == nil || p.Sender.Uid != uint32(os.Geteuid()) {
		closeFiles(p.Files)
		return nil, nil, errors.New("message from somebody who is not root")
	}
	m, err := wire.Decode(p.Data)
	if err != nil {
		closeFiles(p.Files)
		return nil, nil, err
	}
	return m, p.Files, nil
}

func closeFiles(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}
