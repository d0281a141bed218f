package step

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/launcher"
	"github.com/berth-hpc/berth/launcher/wire"
)

// loginLimit bounds how long task 0 may take to say which login its session
// has. It keeps to 20 s itself (spank/login.c) and then says so.
const loginLimit = 25 * time.Second

// ErrNoSession says that there is no task that could be asked for a login.
var ErrNoSession = errors.New("no task of the job runs yet")

// login asks task 0, in whose session the user's home, variables and helper
// programs are, for the login for image. One task of the node is asked; what it
// says is the user's word, not interpreted here and printed nowhere.
func (t *tasks) login(ctx context.Context, image string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, loginLimit)
	defer cancel()
	reply, err := t.firstReply(ctx)
	if err != nil {
		return "", whyNoLogin(ctx)
	}
	data, err := wire.Message{{Key: "login", Value: image}}.Encode()
	if err != nil {
		return "", err
	}
	if err := launcher.SendPacket(reply, data); err != nil {
		return "", whyNoLogin(ctx)
	}
	// A deadline in the past ends the wait. The socket is not read again.
	defer context.AfterFunc(ctx, func() { _ = reply.SetReadDeadline(time.Unix(1, 0)) })()
	p, err := launcher.ReceivePacket(reply, wire.MaxMessage)
	if err != nil {
		return "", whyNoLogin(ctx)
	}
	closeFiles(p.Files)
	return parseLogin(p.Data)
}

// firstReply is task 0's socket, once what that says of itself has been read.
func (t *tasks) firstReply(ctx context.Context) (*os.File, error) {
	select {
	case <-t.read:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.first, nil
}

func whyNoLogin(ctx context.Context) error {
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return fmt.Errorf("its task did not answer within %v", loginLimit)
	case ctx.Err() != nil:
		return ctx.Err()
	}
	return errors.New("its task ended, or does not answer")
}

// parseLogin reads the task's answer. Errors hold nothing of it.
func parseLogin(data []byte) (string, error) {
	m, err := wire.Decode(data)
	if err != nil {
		return "", errors.New("its task's answer makes no sense")
	}
	if reason := m.Get("login_error"); reason != "" {
		return "", errors.New(fault.Clean(reason))
	}
	if m.Get("login") == "" {
		return "", errors.New("its task's answer makes no sense")
	}
	return m.Get("login"), nil
}
