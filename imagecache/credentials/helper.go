package credentials

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berth-hpc/berth/fault"
)

// Helpers starts credential helpers as docker does: docker-credential-NAME,
// with a word as its argument, a host on its standard input and JSON on its
// standard output. What they write to standard error, and what they say
// instead of JSON, is not shown: it may hold a secret.
type Helpers struct {
	Path    string        // folders to look in, as in $PATH
	Environ []string      // their environment
	Limit   time.Duration // after which a helper and its process group are killed
}

const (
	maxAnswer = 64 << 10 // bytes of a helper's answer
	// After its end, how long a helper's pipes may stay open: some leave an
	// agent behind that has inherited them.
	pipeDelay = 200 * time.Millisecond
	// notFound is what helpers say, in place of JSON, when they have nothing.
	notFound = "credentials not found"
)

var helperName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)

// helperAnswer is a login as helpers write it.
type helperAnswer struct {
	Username string
	Secret   Secret
}

// tokenUser is the name by which helpers mark identity tokens.
const tokenUser = "<token>"

// ask gets a login from the helper that a file names.
func (k *Keychain) ask(ctx context.Context, name, file string, t Target) (Login, error) {
	out, err := k.Helpers.run(ctx, name, "get", []byte(serverAddress(t.Registry)))
	if errors.Is(err, errNotFound) {
		return Login{}, nil
	}
	if err != nil {
		return Login{}, helperFault(name, file, err)
	}
	var answer helperAnswer
	if json.Unmarshal(out, &answer) != nil {
		return Login{}, helperFault(name, file, errors.New("its answer is not JSON"))
	}
	login := answer.login(fmt.Sprintf("docker-credential-%s (%s)", name, file))
	if !t.wants(login.name) {
		return Login{}, nil
	}
	return login, nil
}

func (a helperAnswer) login(source string) Login {
	if a.Username == tokenUser {
		return Login{identity: a.Secret, source: source}
	}
	return NewLogin(a.Username, a.Secret, source)
}

func helperFault(name, file string, err error) error {
	remedy := fmt.Sprintf("try: echo HOST | docker-credential-%s get; or take it out of %s", name, file)
	return fault.Wrap("ask", "docker-credential-"+name, fault.User, remedy, err)
}

var (
	errNotFound  = errors.New("it has no login")
	errNoHelpers = errors.New("helper programs run only in commands that you run yourself")
)

// run starts a helper and returns what it wrote.
func (h *Helpers) run(ctx context.Context, name, action string, input []byte) ([]byte, error) {
	if h == nil {
		return nil, errNoHelpers
	}
	program, err := h.find(name)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, h.Limit)
	defer cancel()
	out := &bounded{tooMuch: cancel}
	cmd := exec.CommandContext(ctx, program, action)
	cmd.Env, cmd.Dir = append([]string{}, h.Environ...), "/" // never nil, which is ours
	cmd.Stdin, cmd.Stdout = bytes.NewReader(input), out
	// Pdeathsig follows the thread that forked.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: unix.SIGKILL}
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
	cmd.WaitDelay = pipeDelay
	err = cmd.Run()
	return out.data.Bytes(), h.outcome(ctx, out, err)
}

// outcome says what went wrong in words of ours.
func (h *Helpers) outcome(ctx context.Context, out *bounded, err error) error {
	exit, ended := errors.AsType[*exec.ExitError](err)
	switch {
	case out.over:
		return fmt.Errorf("its answer is longer than %d bytes", maxAnswer)
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return fmt.Errorf("no answer within %v", h.Limit)
	case ctx.Err() != nil:
		return ctx.Err()
	case err == nil, errors.Is(err, exec.ErrWaitDelay):
		return nil
	case ended && strings.Contains(out.data.String(), notFound):
		return errNotFound
	case ended && exit.Exited():
		return fmt.Errorf("exit status %d", exit.ExitCode())
	case ended:
		return errors.New("a signal ended it")
	}
	return errors.New("it can't be started")
}

// find looks a helper up. Its name stands in a file; it must be one.
func (h *Helpers) find(name string) (string, error) {
	if !helperName.MatchString(name) {
		return "", errors.New("that is not the name of a program")
	}
	for _, dir := range filepath.SplitList(h.Path) {
		path := filepath.Join(dir, "docker-credential-"+name)
		if filepath.IsAbs(path) && unix.Access(path, unix.X_OK) == nil {
			return path, nil
		}
	}
	return "", errors.New("there is no such program in your PATH")
}

// bounded keeps a helper's answer up to maxAnswer and calls tooMuch beyond.
type bounded struct {
	data    bytes.Buffer
	tooMuch func()
	over    bool
}

// Write implements io.Writer.
func (b *bounded) Write(p []byte) (int, error) {
	if b.data.Len()+len(p) > maxAnswer {
		b.over = true
		b.tooMuch()
		return 0, errors.New("too much")
	}
	return b.data.Write(p)
}
