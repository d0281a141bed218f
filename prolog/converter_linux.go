package prolog

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/prolog/jobstate"
	"github.com/berth-hpc/berth/prolog/sandbox"
)

// A converter is the process that converts one image. It has a stream to the
// fetcher and nothing else. A nil converter is none.
type converter struct {
	cmd *exec.Cmd
	// fetcher is the fetcher's end of the stream.
	fetcher *os.File
	ended   bool
}

// startConverter starts `berth node convert` for the folder work, whose path
// only root can change; nothing for "". The caller calls end, on the same
// thread.
func startConverter(ctx context.Context, cfg Config, work string) (*converter, error) {
	if work == "" {
		return nil, nil
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socketpair", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "fetcher"), os.NewFile(uintptr(fds[1]), "converter")
	defer theirs.Close()
	c := &converter{cmd: confined(ctx, cfg, "convert", work), fetcher: ours}
	c.cmd.Stderr = &limitedWriter{os.Stderr, maxStderr}
	c.cmd.ExtraFiles = []*os.File{theirs}
	if err := c.cmd.Start(); err != nil {
		ours.Close()
		return nil, fmt.Errorf("start the converter: %w", err)
	}
	return c, nil
}

// streams are the descriptors of a fetcher from the third on.
func (c *converter) streams(events *os.File) []*os.File {
	if c == nil {
		return []*os.File{events}
	}
	return []*os.File{events, c.fetcher}
}

// end returns when the converter, and with it every process in its pid
// namespace, is gone, and how it ended. The fetcher has to be gone: then the
// stream ends, and with it the converter. Asked again it says nothing.
func (c *converter) end() error {
	if c == nil || c.ended {
		return nil
	}
	c.ended = true
	c.fetcher.Close()
	if err := c.cmd.Wait(); err != nil {
		return fmt.Errorf("the converter: %w", err)
	}
	return nil
}

// confined is the command `berth node NAME …`, as root in namespaces of its own.
func confined(ctx context.Context, cfg Config, name string, args ...string) *exec.Cmd {
	argv := cfg.command(append([]string{"node", name}, args...)...)
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env, cmd.Dir = jobstate.Environment(), "/"
	cmd.SysProcAttr = sandbox.Attributes()
	return cmd
}

// checkImage has rootfs looked at by a process of another user than that which
// made it.
func (w *worker) checkImage(ctx context.Context, rootfs *os.File) error {
	out := &bytes.Buffer{}
	cmd := confined(ctx, w.cfg, "check")
	cmd.Stdout, cmd.Stderr = &limitedWriter{out, maxEvent}, &limitedWriter{os.Stderr, maxStderr}
	cmd.ExtraFiles = []*os.File{rootfs}
	runErr := onOneThread(cmd.Run)
	var a checkAnswer
	err := json.Unmarshal(out.Bytes(), &a)
	switch {
	case runErr == nil && err == nil && a.Good && a.Failure == nil:
		return nil
	case err == nil && a.Failure != nil:
		return a.Failure.Err()
	}
	return &fault.Error{
		Op: "check the converted image", Blame: fault.Bug,
		Remedy: "ask your administrator to look into the node's log, and report this",
		Err:    fmt.Errorf("the checker gave no answer: %w", errors.Join(runErr, err)),
	}
}

// onOneThread keeps the thread that starts a process until that has ended:
// Pdeathsig follows it.
func onOneThread(run func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	return run()
}
