package prolog

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"syscall"

	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/imagecache"
	"github.com/berth-hpc/berth/imagecache/cosign"
	"github.com/berth-hpc/berth/imagecache/credentials"
	"github.com/berth-hpc/berth/imagecache/store"
	"github.com/berth-hpc/berth/prolog/jobstate"
	"golang.org/x/sys/unix"
)

// Bounds on what the fetcher may make root read, in bytes.
const (
	maxEvent  = 64 << 10
	maxStderr = 1 << 20
)

// A fetcher is one process of the unprivileged account. What it says is taken
// for data: a digest that must parse, numbers, and text that is cleaned.
type fetcher struct {
	cfg Config
	dir string // its working directory
	// converted is the folder of the converter that works for it; "" for none.
	converted  string
	say        func(imagecache.Progress)
	stderr     io.Writer
	digest     store.Digest // what it resolved
	compressed *int64       // what it measured, in bytes
	login      credentials.Login
	public     bool // whether the registry gave it everything without a login
	verified   []cosign.Verified

	reserve reserveFunc // nil where nothing is to be written
	asked   bool        // whether it has reserved
	refusal error       // of its reservation
}

func (w *worker) fetcher(dir string) *fetcher {
	return &fetcher{cfg: w.cfg, dir: dir, say: w.say, login: w.login, stderr: &limitedWriter{os.Stderr, maxStderr}}
}

// run starts the fetcher and returns when it, and with it every process in
// its pid namespace, is gone. It is killed when ctx ends, and when this
// process dies.
func (f *fetcher) run(ctx context.Context, req FetchRequest) error {
	// Pdeathsig follows the thread that forked: it must live as long as the
	// fetcher, and no other goroutine may end it meanwhile.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c, err := startConverter(ctx, f.cfg, f.converted)
	if err != nil {
		return err
	}
	defer func() { _ = c.end() }() // what failed before says more
	cmd, events, answers, err := f.start(ctx, c)
	if err != nil {
		return err
	}
	defer events.Close()
	defer answers.Close()
	last, err := f.converse(ctx, req, events, answers)
	if err != nil {
		cancel() // it broke the protocol, or must not go on
	}
	// With its first process the pid namespace goes: the kernel kills the
	// others and lets nobody see the end of the first before theirs.
	if werr := cmd.Wait(); err == nil && last == nil {
		err = fmt.Errorf("the fetcher ended without an answer: %w", errOrEnd(werr))
	}
	cerr := c.end()
	if f.refusal != nil {
		return f.refusal
	}
	if err != nil {
		return &fault.Error{
			Op: "get the image", Arg: req.Image, Blame: fault.Bug,
			Remedy: "ask your administrator to look into the node's log, and report this", Err: err,
		}
	}
	return withConverter(f.result(last), cerr)
}

// withConverter adds how the converter ended, if that was not as it should, to
// the fetcher's result: then that one may not know what happened, or is wrong.
func withConverter(err, ended error) error {
	switch {
	case ended == nil:
		return err
	case err == nil:
		return fault.Wrap("convert the image", "", fault.Bug, "ask your administrator to look into the node's log, and report this", ended)
	}
	return &fault.Error{Op: "convert the image", Blame: fault.Of(err), Remedy: fault.Remedy(err), Err: fmt.Errorf("%w (%w)", err, ended)}
}

func errOrEnd(err error) error {
	if err == nil {
		return errors.New("exit status 0")
	}
	return err
}

func (f *fetcher) start(ctx context.Context, c *converter) (cmd *exec.Cmd, events, answers *os.File, err error) {
	uid, gid, err := f.cfg.account()
	if err != nil {
		return nil, nil, nil, errAccount(f.cfg.Account, err)
	}
	input, answers, err := os.Pipe()
	if err != nil {
		return nil, nil, nil, err
	}
	defer input.Close()
	events, theirs, err := os.Pipe()
	if err != nil {
		answers.Close()
		return nil, nil, nil, err
	}
	defer theirs.Close()
	args := f.cfg.command("node", "fetch")
	cmd = exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env, cmd.Dir = jobstate.Environment(), f.dir
	cmd.Stdin, cmd.Stderr = input, f.stderr
	cmd.ExtraFiles = c.streams(theirs)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Credential: &syscall.Credential{Uid: uid, Gid: gid}, // and no supplementary groups
		Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWIPC,
		Pdeathsig:  unix.SIGKILL,
		Setsid:     true,
	}
	if err := cmd.Start(); err != nil {
		events.Close()
		answers.Close()
		return nil, nil, nil, fault.Wrap("start the fetcher", args[0], fault.Site,
			fmt.Sprintf("account %s must be able to execute %s and to enter %s", f.cfg.Account, args[0], f.dir), err)
	}
	return cmd, events, answers, nil
}

// converse asks for req and returns the fetcher's last word; nil when it ended
// without one.
func (f *fetcher) converse(ctx context.Context, req FetchRequest, events io.Reader, answers io.Writer) (*FetchEvent, error) {
	if !f.login.IsZero() {
		login := f.login.Reveal()
		req.Login = &login
	}
	// One that has ended by now is heard of below.
	if err := json.NewEncoder(answers).Encode(req); err != nil && !errors.Is(err, unix.EPIPE) {
		return nil, err
	}
	lines := bufio.NewScanner(events)
	lines.Buffer(make([]byte, 4096), maxEvent)
	for lines.Scan() {
		var e FetchEvent
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			return nil, fmt.Errorf("read the fetcher's answer: %w", err)
		}
		switch {
		case e.Progress != nil:
			f.say(*e.Progress)
		case e.Need != nil:
			if err := f.grant(ctx, *e.Need, answers); err != nil {
				return nil, err
			}
		default:
			return &e, nil
		}
	}
	return nil, lines.Err()
}

func (f *fetcher) result(e *FetchEvent) error {
	switch {
	case e.Failure != nil && e.Full:
		return &fullError{&diskError{e.Failure.Err()}}
	case e.Failure != nil && e.Disk:
		return &diskError{e.Failure.Err()}
	case e.Failure != nil && e.Refused:
		return &refusedError{e.Failure.Err()}
	case e.Failure != nil:
		return e.Failure.Err()
	case e.Digest != nil:
		f.digest = *e.Digest
	case e.Compressed != nil && *e.Compressed >= 0:
		f.compressed = e.Compressed
	case e.Verified != nil:
		f.verified = *e.Verified
	}
	f.public = e.Public
	return nil
}

// A diskError is a failure of the disk that the fetcher wrote to.
type diskError struct{ error }

func (e *diskError) Unwrap() error { return e.error }

// A limitedWriter drops what is too much without an error: the account must
// not fill the run folder with its log.
type limitedWriter struct {
	to   io.Writer
	left int
}

func (w *limitedWriter) Write(p []byte) (int, error) {
	keep := p[:min(len(p), w.left)]
	w.left -= len(keep)
	_, err := w.to.Write(keep)
	return len(p), err
}
