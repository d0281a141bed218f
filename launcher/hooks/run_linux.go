package hooks

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Mark comes before what a failed hook has to say, in the output of Run's
// process.
const Mark = "berth hook: "

// maxOutput bounds what is kept of a hook's output, in bytes.
const maxOutput = 4 << 10

// A Run is one start of a hook's program.
type Run struct {
	Name    string
	Path    string
	Args    []string // with the program's name
	Env     []string // nil is the caller's
	Timeout time.Duration
}

// Do starts the program with the state on its input, in a process group of
// its own, and waits for it. When its time is over the whole group is killed:
// what a hook left behind must not hold up a job. It gets no descriptor of this
// process's but its input and output. The error names the hook
// and has the end of its output.
func (r *Run) Do(state io.Reader) error {
	var out tail
	cmd := &exec.Cmd{Path: r.Path, Args: r.Args, Env: r.Env, Stdin: state, Stdout: &out, Stderr: &out}
	if len(cmd.Args) == 0 {
		cmd.Args = []string{r.Path}
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	keepDescriptors()
	cmd.WaitDelay = 100 * time.Millisecond // for output that a child of its keeps open
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("hook %s: %w", r.Name, err)
	}
	kill := func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	late := time.AfterFunc(r.Timeout, kill)
	err := cmd.Wait()
	inTime := late.Stop()
	kill() // what is left of its group
	switch {
	case !inTime:
		return fmt.Errorf("hook %s (%s) was not done after %s%s", r.Name, filepath.Base(r.Path), r.Timeout, out.said())
	case err != nil && !errors.Is(err, exec.ErrWaitDelay):
		return fmt.Errorf("hook %s (%s): %w%s", r.Name, filepath.Base(r.Path), err, out.said())
	}
	return nil
}

// A tail keeps the end of what is written.
type tail struct{ buf bytes.Buffer }

// Write implements io.Writer.
func (t *tail) Write(p []byte) (int, error) {
	n, err := t.buf.Write(p)
	if over := t.buf.Len() - maxOutput; over > 0 {
		t.buf.Next(over)
	}
	return n, err
}

func (t *tail) said() string {
	text := strings.Join(strings.Fields(t.buf.String()), " ")
	if text == "" {
		return ""
	}
	return ": " + text
}
