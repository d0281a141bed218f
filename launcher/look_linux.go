package launcher

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/berth-hpc/berth/fault"
)

// Look says what there is of Request.Kept. It asks a process of the user's, as
// Create does, in the job's view of the node.
func (c *Creation) Look(ctx context.Context) (*Found, error) {
	var found *Found
	err := c.ask(ctx, func(channel *os.File) error {
		r, files, err := receiveReply(channel)
		switch {
		case err != nil:
			return err
		case r.Failure != nil:
			closeAll(files)
			return r.Failure.Err()
		case r.Found == nil || !r.Found.Running && len(files) > 0:
			closeAll(files)
			return errors.New("the container's builder broke the protocol")
		}
		found = r.Found
		if !found.Running {
			return nil
		}
		files, changed := c.Request.takeChanges(r, files)
		if err := found.take(files, c.Request.User); err != nil {
			closeAll(changed)
			return err
		}
		if len(changed) > 0 {
			found.Container.Changes = changed[0]
		}
		return nil
	})
	return found, err
}

// forgetTimeout is how long Forget waits: what is left goes on by itself.
const forgetTimeout = 5 * time.Second

// Forget has the containers of a job removed that go with it: by a process of
// the user's, which goes on after forgetTimeout. outer is N1 of the job, where
// the ids are that the files may have.
func Forget(ctx context.Context, exe string, outer *os.File, req *Request) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), forgetTimeout)
	defer cancel()
	ours, theirs, err := socketpair()
	if err != nil {
		return err
	}
	defer ours.Close()
	cmd := exec.Command(exe, "inside", "--userns=4")
	cmd.Args[0] = "berth-create"
	cmd.Env, cmd.Dir = fixedEnvironment(), "/"
	cmd.ExtraFiles = []*os.File{theirs, outer}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: credential(req.User), Setsid: true}
	err = cmd.Start()
	theirs.Close()
	if err != nil {
		return err
	}
	if err := SendRequest(ours, req, Attached{}); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
		return nil
	}
}

// ask starts the user's process and has f speak with it.
func (c *Creation) ask(ctx context.Context, f func(channel *os.File) error) error {
	ours, theirs, err := socketpair()
	if err != nil {
		return err
	}
	defer ours.Close()
	var stderr bytes.Buffer
	cmd, err := c.start(ctx, theirs, &stderr)
	theirs.Close()
	if err != nil {
		return fault.Wrap("start the container's builder", "", fault.Bug, "", err)
	}
	err = SendRequest(ours, c.Request, Attached{c.Config, c.Catalogue})
	if err == nil {
		err = f(ours)
	}
	// Its end is part of the answer: libcontainer's init must be gone before
	// the caller goes on. On an error it has nothing more to do.
	if err != nil {
		_ = cmd.Process.Kill()
	}
	if werr := cmd.Wait(); err != nil {
		return explain(err, werr, stderr.Bytes())
	}
	return nil
}
