package prolog

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/imagecache"
	"github.com/berth-hpc/berth/imagecache/credentials"
	"github.com/berth-hpc/berth/prolog/jobstate"
)

// Limits on a look for a user's login.
const (
	lookLimit = 5 * time.Second
	// lookGrace is how long a process may take to end once it is killed. One
	// that waits for a file server in the kernel may not end at all; nobody
	// waits for it.
	lookGrace = 500 * time.Millisecond
	// maxLookLog bounds what such a process may write to the worker's log.
	maxLookLog = 16 << 10
)

// A looker is the user as whom a login is looked for. All of it comes from the
// scheduler and the system's user database.
type looker struct {
	uid, gid uint32
	groups   []uint32 // supplementary
	home     string   // "" for none
}

// lookUp looks for a user's login for ref in the user's own files, as the user.
// It returns the zero Login where there is none. An error says why it is not
// known whether there is one; the task's session may know more then, because
// it may start credential helpers and has the user's tickets for home folders.
//
// Root's own logins are not looked for.
func (c Config) lookUp(ctx context.Context, who looker, ref imagecache.Reference) (credentials.Login, error) {
	if who.uid == 0 || ref.Kind() != imagecache.Registry {
		return credentials.Login{}, nil
	}
	login, err := c.lookWithin(ctx, lookLimit, who, LoginRequest{
		Registry: ref.Host(), Repository: ref.Repository(), User: ref.User(), Home: who.home,
	})
	return login, fault.Wrap("look for the login of", fmt.Sprintf("user %d", who.uid), fault.User,
		"log in by: berth login "+ref.Host(), err)
}

type looked struct {
	login credentials.Login
	err   error
}

// lookWithin returns in time whatever the process does.
func (c Config) lookWithin(ctx context.Context, limit time.Duration, who looker, req LoginRequest) (credentials.Login, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	answer := make(chan looked, 1)
	go func() {
		login, err := c.look(ctx, who, req)
		answer <- looked{login, err}
	}()
	late := make(chan struct{})
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(lookGrace, func() { close(late) }) })
	defer stop()
	select {
	case l := <-answer:
		if l.err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
			l.err = fmt.Errorf("reading files in %s took more than %v", req.Home, limit)
		}
		return l.login, l.err
	case <-late:
		return credentials.Login{}, fmt.Errorf("reading files in %s hangs in the kernel", req.Home)
	}
}

// look starts the process, and is done when that and its pid namespace are.
func (c Config) look(ctx context.Context, who looker, req LoginRequest) (credentials.Login, error) {
	// Pdeathsig follows the thread that forked.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	input, err := json.Marshal(req)
	if err != nil {
		return credentials.Login{}, err
	}
	ours, theirs, err := os.Pipe()
	if err != nil {
		return credentials.Login{}, err
	}
	defer ours.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cmd := c.lookCommand(ctx, who, theirs)
	cmd.Stdin = bytes.NewReader(input)
	// Nothing that is open here may reach a process of the user's.
	if err = unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC); err == nil {
		err = cmd.Start()
	}
	theirs.Close()
	if err != nil {
		return credentials.Login{}, fmt.Errorf("start %s as the user: %w", cmd.Path, err)
	}
	context.AfterFunc(ctx, func() { _ = ours.SetReadDeadline(time.Unix(1, 0)) })
	login, err := credentials.ReadAnswer(ours)
	cancel() // what it still does is of no use
	_ = cmd.Wait()
	return login, err
}

func (c Config) lookCommand(ctx context.Context, who looker, answer *os.File) *exec.Cmd {
	args := c.command("node", "credentials")
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env, cmd.Dir = jobstate.Environment(), "/"
	cmd.Stderr = &limitedWriter{os.Stderr, maxLookLog}
	cmd.ExtraFiles = []*os.File{answer}
	cmd.WaitDelay = lookGrace
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Credential: &syscall.Credential{Uid: who.uid, Gid: who.gid, Groups: who.groups},
		Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWIPC,
		Pdeathsig:  unix.SIGKILL,
		Setsid:     true,
	}
	return cmd
}
