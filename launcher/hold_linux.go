package launcher

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"syscall"
)

// Hold starts a process of the user's that stays in the container and so keeps
// it: a container by itself ends with its last task, and a job under PBS has
// moments without one. join is program berth-join, which executes nothing of
// the image. recorded is called with the process while it waits; if that fails,
// or the caller dies before, the process ends. Afterwards it stays until it is
// killed.
func (c *Container) Hold(ctx context.Context, join string, users *UserNamespaces, remap bool, u User, recorded func(pid int) error) error {
	cmd := exec.Command(join, "--hold", "--user=3", "--mnt=4", "--result=5")
	cmd.Env, cmd.Dir = fixedEnvironment(), "/"
	cmd.ExtraFiles = []*os.File{users.Outer, c.Mount, c.Result}
	if !remap {
		cmd.Args = append(cmd.Args, "--user2="+strconv.Itoa(6))
		cmd.ExtraFiles = append(cmd.ExtraFiles, users.Inner)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: credential(u), Setsid: true}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", join, err)
	}
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })
	defer stop()
	if _, err := io.ReadFull(out, make([]byte, 1)); err != nil {
		return fmt.Errorf("hold the container: %w", withOutput(errors.Join(cmd.Wait(), ctx.Err()), stderr.Bytes()))
	}
	if err := recorded(cmd.Process.Pid); err != nil {
		_ = in.Close()
		_ = cmd.Wait() // it ends: nobody knows of it
		return err
	}
	_, err = in.Write([]byte{1})
	return errors.Join(err, in.Close())
}
