package prolog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berth-hpc/berth/imagecache/store"
	"github.com/berth-hpc/berth/launcher"
	"github.com/berth-hpc/berth/prolog/jobstate"
)

// How long a worker gets to end by itself, and how long all of Cleanup may
// take: a scheduler's epilog waits for it.
const (
	workerGrace    = 2 * time.Second
	cleanupTimeout = 15 * time.Second
)

// Cleanup is `berth node cleanup`, run by root after a job: it reads a request
// (key job) from r, stops the job's workers, ends its leases, unmounts what
// nobody uses any more and lets go of its namespaces; if the store's disk is
// short of space it starts a process that makes room. It may be called any
// number of times, also for a job that never had an image. The error is for the
// log, the caller must not fail the job's end with it.
func Cleanup(ctx context.Context, cfg Config, r io.Reader) error {
	m, err := readMessage(r)
	if err != nil {
		return err
	}
	job, err := jobID(m)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, cleanupTimeout)
	defer cancel()
	if !known(cfg.RunDir) {
		return nil // no job with an image since the boot
	}
	if err := errors.Join(endJob(ctx, cfg, job), collectIfShort(cfg), cfg.tidyRecords(ctx)); err != nil {
		return fmt.Errorf("clean up after job %s: %w", job, err)
	}
	return nil
}

// endJob undoes what was made for a job. Each step is tried even if another
// fails.
func endJob(ctx context.Context, cfg Config, job jobstate.JobID) error {
	return errors.Join(
		endCommon(ctx, cfg.RunDir, job),
		endInside(ctx, cfg.RunDir, job),
		forgetKept(ctx, cfg, job),
		stopWorkers(ctx, cfg.RunDir, job),
		removeJob(cfg.RunDir, job),
		releaseImages(ctx, cfg.RunDir),
		unpin(ctx, cfg.RunDir, job),
		releaseInPlace(ctx, cfg), // last: a shared file system may take its time
	)
}

// known says whether anything was ever prepared since the boot. A node that
// never runs containers should not get a run folder from its epilogs.
func known(runDir string) bool {
	_, jobs := os.Stat(filepath.Join(runDir, "jobs"))
	_, sessions := os.Stat(filepath.Join(runDir, "sessions"))
	return jobs == nil || sessions == nil
}

// removeJob removes the job's folder, and with it the leases. It moves the
// folder away first: a worker that outlived stopWorkers finds no place for a
// lease or an outcome.
func removeJob(runDir string, job jobstate.JobID) error {
	gone := filepath.Join(runDir, fmt.Sprintf("ended.%s.%d", job, os.Getpid()))
	err := os.Rename(jobstate.JobDir(runDir, job), gone)
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	// Also what a cleanup that was killed had moved away.
	ended, _ := filepath.Glob(filepath.Join(runDir, "ended.*"))
	for _, dir := range ended {
		err = errors.Join(err, os.RemoveAll(dir))
	}
	return err
}

func unpin(ctx context.Context, runDir string, job jobstate.JobID) error {
	mounts, err := launcher.OpenMounts(ctx, runDir)
	if err != nil {
		return err
	}
	defer mounts.Close()
	return errors.Join(mounts.Unpin(ctx, jobstate.PinName(job)), unpinForgotten(ctx, runDir, mounts))
}

// unpinForgotten lets go of what jobs pinned that have no folder. Such a job
// ended while Cleanup could not run, because berth was being replaced, say. A
// job that lives has a folder: its prolog made it before the first step.
func unpinForgotten(ctx context.Context, runDir string, mounts *launcher.Mounts) error {
	names, err := mounts.PinnedJobs()
	for _, name := range names {
		if _, serr := os.Stat(filepath.Join(runDir, "jobs", name)); errors.Is(serr, os.ErrNotExist) {
			err = errors.Join(err, mounts.Unpin(ctx, name))
		}
	}
	return err
}

func stopWorkers(ctx context.Context, runDir string, job jobstate.JobID) error {
	folders, err := jobstate.Folders(runDir, job)
	for _, f := range folders {
		err = errors.Join(err, stopWorker(ctx, f))
	}
	return err
}

// stopWorker returns when nobody works on the folder any more: it asks, and
// kills after workerGrace. A worker that has only just been started may not
// have said yet who it is; then it is asked later. It is asked once: a second
// signal ends it at once, with its work folders left.
func stopWorker(ctx context.Context, folder jobstate.Folder) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	sig, kill := unix.SIGTERM, time.After(workerGrace)
	for folder.Busy() {
		if sig != 0 {
			sent, err := signalWorker(folder, sig)
			if err != nil {
				return err
			}
			if sent {
				sig = 0
			}
		}
		select {
		case <-tick.C:
		case <-kill:
			sig = unix.SIGKILL
		case <-ctx.Done():
			return fmt.Errorf("stop the worker of %s: %w", folder.Path(), ctx.Err())
		}
	}
	return nil
}

// endCommon ends who makes the container that a job's tasks share, and who
// keeps it (PBS). Both are killed: there is nothing that they could save, and
// the container goes when nobody is in it.
func endCommon(ctx context.Context, runDir string, job jobstate.JobID) error {
	processes, err := jobstate.CommonProcesses(runDir, job)
	for _, w := range processes {
		err = errors.Join(err, endProcess(ctx, w))
	}
	return err
}

// endProcess kills a process and returns when it has ended: what it held is
// free then.
func endProcess(ctx context.Context, w jobstate.Worker) error {
	pidfd, err := openProcess(w)
	if pidfd < 0 {
		return err
	}
	defer unix.Close(pidfd)
	if err := unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return os.NewSyscallError("pidfd_send_signal", err)
	}
	ended := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
	for ctx.Err() == nil {
		if n, err := unix.Poll(ended, 100); n > 0 || err != nil && !errors.Is(err, unix.EINTR) {
			return os.NewSyscallError("poll", err)
		}
	}
	return fmt.Errorf("wait for the end of process %d: %w", w.PID, ctx.Err())
}

// signalWorker signals the process that the folder names, unless its number
// belongs to another process by now, and says whether it did.
func signalWorker(folder jobstate.Folder, sig unix.Signal) (sent bool, err error) {
	w, err := folder.Worker()
	if errors.Is(err, os.ErrNotExist) {
		return false, nil // not yet
	}
	if err != nil {
		return false, err
	}
	pidfd, err := openProcess(w)
	if pidfd < 0 {
		return false, err
	}
	defer unix.Close(pidfd)
	err = unix.PidfdSendSignal(pidfd, sig, nil, 0)
	if errors.Is(err, unix.ESRCH) {
		return false, nil
	}
	return err == nil, os.NewSyscallError("pidfd_send_signal", err)
}

// openProcess opens a process by its number, unless that belongs to another
// one by now: then it returns -1. The pidfd is opened before the look at the
// start time, so it can't be another one afterwards.
func openProcess(w jobstate.Worker) (pidfd int, err error) {
	pidfd, err = unix.PidfdOpen(w.PID, 0)
	if errors.Is(err, unix.ESRCH) {
		return -1, nil
	}
	if err != nil {
		return -1, os.NewSyscallError("pidfd_open", err)
	}
	if start, err := store.ProcessStart(w.PID); err != nil || start != w.Start {
		unix.Close(pidfd)
		return -1, nil
	}
	return pidfd, nil
}
