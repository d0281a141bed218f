package prolog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"github.com/berth-hpc/berth/imagecache/credentials"
	"github.com/berth-hpc/berth/imagecache/store"
	"github.com/berth-hpc/berth/launcher"
	"github.com/berth-hpc/berth/launcher/wire"
	"github.com/berth-hpc/berth/prolog/jobstate"
)

// Prepare is `berth node prepare`, run by root: it reads a request (keys job,
// uid, gid, image, digest and, optional, wait, account and partition) from r, has a detached worker
// prepare the image, and returns when that is done or after PrologWait,
// whichever is first. What becomes of it is recorded for the job's tasks; an
// error means that nothing could be recorded.
//
// Preparing the same image for the same job again finds the worker at work, or
// its outcome; only after a failure that is no longer fresh it starts over.
//
// A message with the key login brings the user's login from the job's session:
// it is for a preparation that wanted one, and goes to the worker on a pipe.
func Prepare(ctx context.Context, cfg Config, r io.Reader) error {
	if err := credentials.Guard(); err != nil {
		return err
	}
	m, err := readMessage(r)
	if err != nil {
		return err
	}
	req, err := parseRequest(m)
	if err != nil {
		return err
	}
	began := time.Now()
	folder, at, err := start(ctx, cfg, req, m)
	if err != nil {
		return fmt.Errorf("prepare an image for job %s: %w", req.Job, err)
	}
	ctx, cancel := context.WithTimeout(ctx, wait(m, cfg.PrologWait))
	defer cancel()
	// Ready, failed or not yet: the tasks learn it from the folder.
	_, _ = folder.Wait(ctx, nil)
	var held time.Duration // nobody, where the helper of a step asks, which waits itself
	told, ok := toldOf(m)
	if m.Get("wait") != "0" {
		held = time.Since(began)
	}
	if !ok {
		cfg.countPrepare(req, nil, held, at)
	} else {
		cfg.countPrepare(req, &told, held, at)
	}
	return nil
}

// start makes sure that somebody prepares what req asks for, or did. at is the
// outcome where this process has prepared it.
func start(ctx context.Context, cfg Config, req jobstate.Request, m wire.Message) (folder jobstate.Folder, at *jobstate.State, err error) {
	// The run folder's own mount comes first: it would cover the job's folder.
	mounts, err := launcher.OpenMounts(ctx, cfg.RunDir)
	if err != nil {
		return jobstate.Folder{}, nil, err
	}
	mounts.Close()
	folder, err = jobstate.Create(cfg.RunDir, req)
	if job, ok := toldOf(m); err == nil && ok {
		err = writeJob(cfg.RunDir, req, job)
	}
	if err != nil {
		return folder, nil, err
	}
	login := m.Get("login")
	lock, err := takeLock(ctx, folder, login != "")
	if err != nil || lock == nil {
		return folder, nil, err // nil: a worker is at it
	}
	defer lock.Close() // the worker's copy keeps it locked
	if settled, err := alreadySettled(folder, login != ""); settled || err != nil {
		return folder, nil, err
	}
	if state, ok := atOnce(ctx, cfg, req); ok {
		return folder, &state, folder.SetState(state)
	}
	return folder, nil, startWorker(cfg, folder, lock, login)
}

// endingLimit bounds how long a worker that has recorded its outcome may take to
// end.
const endingLimit = 5 * time.Second

// takeLock takes the folder's lock, or returns nil if somebody has it who works.
// Who brings a login waits for a worker that has said that it wants one and is
// about to end.
func takeLock(ctx context.Context, folder jobstate.Folder, login bool) (*os.File, error) {
	ctx, cancel := context.WithTimeout(ctx, endingLimit)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		lock, err := folder.TryLock()
		if lock != nil || err != nil || !login {
			return lock, err
		}
		if s, err := folder.State(); err != nil || s.LoginWanted == nil {
			return nil, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, nil
		}
	}
}

// atOnce prepares a pinned image that the node has and that the user may use, as
// far as no registry has to be asked, without a worker: starting
// one costs each warm job more than the work itself. Whatever is not plain is
// left to a worker, which says what is wrong.
func atOnce(ctx context.Context, cfg Config, req jobstate.Request) (jobstate.State, bool) {
	began := time.Now()
	d, err := store.ParseDigest(req.Digest)
	if err != nil {
		return jobstate.State{}, false
	}
	st, err := store.OpenExisting(cfg.StoreDir)
	if err != nil {
		return jobstate.State{}, false
	}
	w := &worker{cfg: cfg, req: req, log: logrus.New(), phases: phases{}}
	ready, ok := w.atOnce(ctx, st, d)
	return jobstate.State{
		Ready: ready, Hit: true, Time: time.Now(), Seconds: time.Since(began).Seconds(), Phases: w.phases, Verdicts: w.verdicts(),
	}, ok
}

func (w *worker) atOnce(ctx context.Context, st *store.Store, d store.Digest) (*jobstate.Ready, bool) {
	if _, err := st.Get(d); !errors.Is(err, store.ErrNotFound) {
		return w.inStore(ctx, st, d)
	}
	if w.cfg.Policy.Restricts() {
		return nil, false // the worker has time to look at the shared store
	}
	return w.atOnceInPlace(ctx, d)
}

// inStore uses an image of the node's store that the user may have, as far as
// nobody has to be asked.
func (w *worker) inStore(ctx context.Context, st *store.Store, d store.Digest) (*jobstate.Ready, bool) {
	im, err := st.Get(d)
	if err != nil || w.suspect(im) || !w.permitAtOnce(im) {
		return nil, false
	}
	if a, err := im.Access(); err != nil || !w.mayUseNow(d, a) {
		return nil, false
	}
	ready, err := w.useImage(ctx, im)
	return ready, err == nil
}

// alreadySettled says whether a former worker's outcome stands, also against a
// login that has come. It runs under the folder's lock.
func alreadySettled(folder jobstate.Folder, login bool) (bool, error) {
	s, err := folder.State()
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err == nil && s.Ready != nil:
		return true, nil
	case err == nil && login && s.LoginWanted != nil:
	case err == nil && time.Since(s.Time) < jobstate.FreshFor:
		return true, nil
	}
	return false, folder.Forget()
}

// startWorker starts `berth node worker FOLDER` in a session of its own, with
// the folder's lock as descriptor 3, and leaves it. A login, if there is one, it
// reads from descriptor 4.
func startWorker(cfg Config, folder jobstate.Folder, lock *os.File, login string) error {
	log, err := os.OpenFile(folder.LogPath(), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	// The worker outlives us and everybody above: it must not keep what a
	// scheduler's daemon left open, nor hand it to the account (Linux 5.11).
	if err := unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return os.NewSyscallError("close_range", err)
	}
	args := cfg.command("node", "worker", folder.Path())
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env, cmd.Dir = jobstate.Environment(), "/"
	cmd.Stdout, cmd.Stderr = log, log
	cmd.ExtraFiles = []*os.File{lock}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if login != "" {
		return startWithLogin(cmd, login)
	}
	return startAndLeave(cmd)
}

func startAndLeave(cmd *exec.Cmd) error {
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start worker: %w", err)
	}
	return cmd.Process.Release()
}

// handOverLimit bounds how long a worker may take to begin to read.
const handOverLimit = 10 * time.Second

// startWithLogin is startAndLeave for a worker that is to read a login.
func startWithLogin(cmd *exec.Cmd, login string) error {
	theirs, ours, err := os.Pipe()
	if err != nil {
		return err
	}
	defer ours.Close()
	cmd.Args = append(cmd.Args, "--login")
	cmd.ExtraFiles = append(cmd.ExtraFiles, theirs)
	err = startAndLeave(cmd)
	theirs.Close()
	if err != nil {
		return err
	}
	if err := ours.SetWriteDeadline(time.Now().Add(handOverLimit)); err != nil {
		return err
	}
	if _, err := io.WriteString(ours, login); err != nil {
		return fmt.Errorf("hand the login to the worker: %w", err)
	}
	return nil
}
