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

// Wait returns the outcome of a preparation that has been started (see
// Ensure): where the image is, or the failure as a fault.Error. progress, if
// not nil, gets each new line for the user. A worker that died without an
// outcome is a failure too. When ctx ends, its error is returned.
func (f Folder) Wait(ctx context.Context, progress func(line string)) (Ready, error) {
	// Without inotify (fs.inotify.max_user_instances) it takes a little longer.
	watch, _ := f.watch()
	if watch != nil {
		defer watch.Close()
		// A deadline in the past ends the read below.
		defer context.AfterFunc(ctx, func() { _ = watch.SetReadDeadline(time.Unix(1, 0)) })()
	}
	last := ""
	for {
		if s, err := f.outcome(); err == nil {
			return s.result()
		} else if !errors.Is(err, fs.ErrNotExist) {
			return Ready{}, err
		}
		if line := f.Progress(); line != last && progress != nil {
			progress(line)
			last = line
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
	if s.Failure != nil {
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

// sleep returns at the next event, after checkWorker, or with ctx's error.
func sleep(ctx context.Context, watch *os.File) error {
	if watch == nil {
		select {
		case <-time.After(checkWorker):
		case <-ctx.Done():
		}
		return ctx.Err()
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
