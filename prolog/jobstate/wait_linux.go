package jobstate

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berth-hpc/berth/fault"
)

// checkWorker is how often a waiting process looks whether the worker is
// still alive; outcomes and progress are noticed at once.
const checkWorker = 500 * time.Millisecond

// A warm preparation ends within milliseconds, and closing an inotify
// descriptor alone takes the kernel 4 to 20 (it waits until no CPU can see the
// watch any more; the end of a process does, too). So Wait looks by itself at
// first, and only has itself told when it takes longer.
const (
	looks     = 50
	lookEvery = 2 * time.Millisecond
)

// Wait returns the outcome of a preparation that has been started (see
// Ensure): where the image is, or the failure as a fault.Error, as a
// LoginWantedError where a login might change it. progress, if
// not nil, gets each new line for the user. A worker that died without an
// outcome is a failure too. When ctx ends, its error is returned.
func (f Folder) Wait(ctx context.Context, progress func(line string)) (Ready, error) {
	w := &waiter{Folder: f, progress: progress}
	if ready, done, err := w.often(ctx); done {
		return ready, err
	}
	return w.told(ctx)
}

// A waiter is one call of Wait.
type waiter struct {
	Folder
	progress func(line string)
	last     string // line that progress got
}

// look says whether the outcome is there, and passes progress on.
func (w *waiter) look() (ready Ready, done bool, err error) {
	s, err := w.outcome()
	if err == nil {
		ready, err = s.result()
		return ready, true, err
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return Ready{}, true, err
	}
	if line := w.Progress(); line != w.last && w.progress != nil {
		w.progress(line)
		w.last = line
	}
	return Ready{}, false, nil
}

// often looks for a while every lookEvery.
func (w *waiter) often(ctx context.Context) (ready Ready, done bool, err error) {
	for range looks {
		if ready, done, err := w.look(); done {
			return ready, true, err
		}
		if err := pause(ctx, lookEvery); err != nil {
			return Ready{}, true, err
		}
	}
	return Ready{}, false, nil
}

// told looks when something has changed.
func (w *waiter) told(ctx context.Context) (Ready, error) {
	// Without inotify (fs.inotify.max_user_instances) it takes a little longer.
	watch, _ := w.watch()
	if watch != nil {
		defer watch.Close()
		// A deadline in the past ends the read in sleep.
		defer context.AfterFunc(ctx, func() { _ = watch.SetReadDeadline(time.Unix(1, 0)) })()
	}
	for {
		if ready, done, err := w.look(); done {
			return ready, err
		}
		if err := sleep(ctx, watch); err != nil {
			return Ready{}, err
		}
	}
}

// outcome is the state; fs.ErrNotExist while the worker works.
func (f Folder) outcome() (State, error) {
	busy := f.Busy() // first: a worker writes the state before it lets go
	s, err := f.State()
	if errors.Is(err, fs.ErrNotExist) && !busy {
		return s, &fault.Error{
			Op: "prepare the image", Blame: fault.Site,
			Remedy: "submit the job again; if it happens twice, tell your administrator to read the node's system log",
			Err:    errors.New("the process that prepares it was killed"),
		}
	}
	return s, err
}

func (s State) result() (Ready, error) {
	switch {
	case s.LoginWanted != nil:
		return Ready{}, &LoginWantedError{*s.LoginWanted, s.Failure.Err()}
	case s.Failure != nil:
		return Ready{}, s.Failure.Err()
	}
	return *s.Ready, nil
}

// watch reports files that get their final name in the folder. The descriptor
// is non-blocking, so that package os waits for it with deadlines.
func (f Folder) watch() (*os.File, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, os.NewSyscallError("inotify_init1", err)
	}
	watch := os.NewFile(uintptr(fd), "inotify")
	if _, err := unix.InotifyAddWatch(fd, f.path, unix.IN_MOVED_TO|unix.IN_ONLYDIR); err != nil {
		watch.Close()
		return nil, os.NewSyscallError("inotify_add_watch", err)
	}
	return watch, nil
}

// pause returns after d, or with ctx's error.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
	return ctx.Err()
}

// sleep returns at the next event, after checkWorker, or with ctx's error.
func sleep(ctx context.Context, watch *os.File) error {
	if watch == nil {
		return pause(ctx, checkWorker)
	}
	if err := watch.SetReadDeadline(time.Now().Add(checkWorker)); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil { // after the deadline: AfterFunc sets its own
		return err
	}
	var events [4096]byte
	_, err := watch.Read(events[:])
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	return nil
}
