package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/launcher"
	"github.com/berth-hpc/berth/launcher/wire"
)

// saveStepCmd is what the process of a step's local task 0 becomes where the
// step is to be saved (spank/save.c): outside of the container, as the user, in
// the task's session, folder and environment. The task is its child.
type saveStepCmd struct{}

// Run lets the task go on when there is hope that its container can be saved,
// waits for it and for the node's other tasks, and saves the container. It ends
// as the task did, unless the container could not be saved.
func (*saveStepCmd) Run(ctx context.Context, s *session) error {
	if err := inherited(unix.S_IFSOCK); err != nil {
		return err
	}
	if err := guardSecrets(); err != nil {
		return err
	}
	caught := make(chan os.Signal, 16)
	signal.Ignore(syscall.SIGQUIT, syscall.SIGTSTP, syscall.SIGTTIN, syscall.SIGTTOU, syscall.SIGPIPE)
	signal.Notify(caught, syscall.SIGTERM)
	channel, err := launcher.NewSocket(3)
	if err != nil {
		return err
	}
	unix.CloseOnExec(3)
	step, err := receiveStep(channel)
	if err != nil {
		return err
	}
	if step.batch {
		signal.Notify(caught, forwarded()...)
	}
	save, err := s.newStepSaver(ctx, step)
	if err != nil {
		return err
	}
	if err := launcher.SendPacket(channel, []byte("go")); err != nil {
		return fault.Wrap("start the task", "", fault.Bug, "", err)
	}
	status, told, err := step.wait(caught)
	if err != nil {
		return err
	}
	err = save.unless(ctx, step, status, told, caught)
	return s.endAs(status, err)
}

// forwarded are signals that Slurm may send to a batch script alone (scancel
// --batch, --signal=B:…): to the process that it started.
func forwarded() []os.Signal {
	return []os.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGALRM, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGXCPU}
}

// endAs ends with the status of the task, which counts more than that its
// container was not saved.
func (s *session) endAs(status syscall.WaitStatus, saved error) error {
	code := status.ExitStatus()
	if status.Signaled() {
		code = 128 + int(status.Signal())
	}
	if code == 0 {
		return saved
	}
	if saved != nil {
		report(s.stderr, saved)
	}
	return ended(code)
}

// ended is the exit status of a process that this one stands for.
type ended int

// Error implements error.
func (e ended) Error() string { return "ended with status " + strconv.Itoa(int(e)) }

// A savedStep is a step that is to be saved, on this node.
type savedStep struct {
	target        string // as the user gave it
	task          int    // local task 0
	tasks         int    // on this node
	batch         bool
	image, digest string

	// Mount keeps the container, and so its changes, until they are saved.
	// Counter has how many tasks joined, and in its upper half how many of the
	// others have ended. The rest may be nil.
	mount, counter, changes, base, config *os.File

	joined, others int // counted so far
}

// receiveStep reads spank/save.c's message.
func receiveStep(channel *os.File) (*savedStep, error) {
	p, err := launcher.ReceivePacket(channel, wire.MaxMessage)
	if err != nil {
		return nil, err
	}
	m, err := wire.Decode(p.Data)
	if err != nil {
		return nil, err
	}
	step := &savedStep{target: m.Get("target"), batch: m.Get("batch") == "1", image: m.Get("image"), digest: m.Get("digest")}
	var errs [2]error
	step.task, errs[0] = strconv.Atoi(m.Get("task"))
	step.tasks, errs[1] = strconv.Atoi(m.Get("tasks"))
	names := m.All("saved")
	if err := errors.Join(errs[:]...); err != nil || len(p.Files) != 2+len(names) {
		return nil, fmt.Errorf("%d descriptors with %q: %w", len(p.Files), m, err)
	}
	step.mount, step.counter = p.Files[0], p.Files[1]
	for i, name := range names {
		switch f := p.Files[2+i]; name {
		case "changes":
			step.changes = f
		case "base":
			step.base = f
		case "config":
			step.config = f
		}
	}
	return step, nil
}

// wait waits for the tasks. told says that the step was told to end: then it
// waits for task 0 alone.
func (st *savedStep) wait(caught <-chan os.Signal) (status syscall.WaitStatus, told bool, err error) {
	done := make(chan error, 1)
	go func() {
		_, err := syscall.Wait4(st.task, &status, 0, nil)
		for errors.Is(err, syscall.EINTR) {
			_, err = syscall.Wait4(st.task, &status, 0, nil)
		}
		done <- err
	}()
	for running := true; running; {
		select {
		case sig := <-caught:
			told = told || sig == syscall.SIGTERM
			if st.batch {
				_ = syscall.Kill(st.task, sig.(syscall.Signal))
			}
		case err := <-done:
			if err != nil {
				return status, told, fault.Wrap("wait for the task", "", fault.Bug, "", err)
			}
			running = false
		}
	}
	// A tick, because it is waited for two things, the counter and a signal.
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		if err := st.count(); err != nil || told || status.Signaled() || st.others >= st.tasks-1 {
			return status, told, err
		}
		select {
		case <-tick.C:
		case sig := <-caught:
			told = sig == syscall.SIGTERM
		}
	}
}

// count adds what was counted since.
func (st *savedStep) count() error {
	fds := []unix.PollFd{{Fd: int32(st.counter.Fd()), Events: unix.POLLIN}}
	if n, err := unix.Poll(fds, 0); err != nil || n == 0 {
		if errors.Is(err, unix.EINTR) {
			return nil
		}
		return err
	}
	var n [8]byte
	if _, err := st.counter.Read(n[:]); err != nil {
		return fault.Wrap("count the step's tasks", "", fault.Bug, "", err)
	}
	v := binary.NativeEndian.Uint64(n[:])
	st.joined += int(uint32(v))
	st.others += int(v >> 32)
	return nil
}

// lost says why there is nothing to save, "" if there is.
func (st *savedStep) lost(status syscall.WaitStatus, told bool) string {
	switch {
	case told:
		return "the step was told to end"
	case status.Signaled():
		return "a signal ended task 0: " + status.Signal().String()
	case st.joined < st.tasks:
		return fmt.Sprintf("%d of %d tasks did not start", st.tasks-st.joined, st.tasks)
	}
	return ""
}

// unless saves the container, unless there is nothing to save.
func (v *stepSaver) unless(ctx context.Context, st *savedStep, status syscall.WaitStatus, told bool, caught <-chan os.Signal) error {
	if why := st.lost(status, told); why != "" {
		return &fault.Error{
			Op: "save the container to", Arg: v.name(), Blame: fault.User, Err: errors.New(why),
			Remedy: "nothing was changed there; a step is saved when all its tasks have started and ended by themselves",
		}
	}
	limit := v.cfg.Container.SaveTimeout
	ctx, cancel := context.WithTimeoutCause(ctx, limit, &fault.Error{
		Op: "wait", Blame: fault.Site, Err: fmt.Errorf("it took longer than %v (container.save_timeout)", limit),
		Remedy: "nothing was changed there; change less, choose a faster disk or registry, or ask the administrator",
	})
	defer cancel()
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	go func() {
		for {
			select {
			case sig := <-caught:
				if slices.Contains([]os.Signal{syscall.SIGTERM, syscall.SIGINT}, sig) {
					stop(&fault.Error{Op: "wait", Blame: fault.User, Err: errors.New("the step was told to end"), Remedy: "nothing was changed there"})
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	return v.save(ctx)
}
