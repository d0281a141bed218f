package prolog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/berth-hpc/berth/imagecache/store"
	"github.com/berth-hpc/berth/prolog/jobstate"
	"github.com/berth-hpc/berth/prolog/metrics"
)

// fetchInto has the account fetch d into work folders of lock, and returns
// them, open. When the disk becomes full in spite of the reservation, it makes
// room once more and starts over.
func (w *worker) fetchInto(ctx context.Context, st *store.Store, lock *store.Lock, d store.Digest, uid, gid uint32) (store.Work, error) {
	space, reserved := w.space(st), int64(0)
	reserve := func(ctx context.Context, bytes int64) error {
		reserved = bytes
		return space.Reserve(ctx, lock, bytes)
	}
	work, err := w.fetchOnce(ctx, lock, d, uid, gid, reserve)
	if full := (*fullError)(nil); !errors.As(err, &full) {
		return work, err
	}
	if ferr := lock.Empty(); ferr != nil {
		return store.Work{}, errors.Join(err, ferr)
	}
	if freed, ferr := space.Free(ctx, lock, reserved); ferr != nil || freed == 0 {
		return store.Work{}, err
	}
	w.log.WithError(err).Warn("made room, and start over")
	return w.fetchOnce(ctx, lock, d, uid, gid, reserve)
}

// fetchOnce gives the fetcher and the converter a folder each: neither can
// touch what the other leaves.
func (w *worker) fetchOnce(ctx context.Context, lock *store.Lock, d store.Digest, uid, gid uint32, reserve reserveFunc) (work store.Work, err error) {
	work = store.Work{Stager: int(uid), Check: func(rootfs *os.File) error { return w.checkImage(ctx, rootfs) }}
	defer func() {
		if err != nil {
			work.Folder.Close() // a nil File takes that
			work.Rootfs.Close()
		}
	}()
	// Opened before the account runs: what we publish from are these folders.
	if work.Folder, err = workFolder(lock, uid, gid); err != nil {
		return work, err
	}
	if work.Rootfs, err = workFolder(lock, uid, gid); err != nil {
		return work, err
	}
	f := w.fetcher(work.Folder.Name())
	f.reserve, f.converted = reserve, work.Rootfs.Name()
	defer w.keepTelling()()
	err = f.run(ctx, FetchRequest{Image: w.req.Image, Digest: d, MaxFile: w.cfg.MaxImage, Rate: w.rate})
	o, _ := w.origin()
	o.Public = f.public
	work.Origin, work.Private = &o, !f.public
	return work, err
}

// workFolder makes a work folder for the account and opens it.
func workFolder(lock *store.Lock, uid, gid uint32) (*os.File, error) {
	dir, err := lock.TempDir(int(uid), int(gid))
	if err != nil {
		return nil, err
	}
	return openFolder(dir)
}

// reserveCopy makes room in st for a copy of src's image.
func (w *worker) reserveCopy(ctx context.Context, src *store.Source, st *store.Store, lock *store.Lock) error {
	info, err := src.Rootfs.Stat()
	if err != nil {
		return err
	}
	return w.space(st).Reserve(ctx, lock, info.Size())
}

// trim brings the store back within its limits after an image has come. The
// caller holds that one's lock, so it stays; if nothing else can go, the next
// pull finds out.
func (w *worker) trim(ctx context.Context, st *store.Store) {
	removed, err := w.space(st).Trim(ctx)
	for _, e := range removed {
		w.log.WithField("digest", e.Digest()).Info("removed to make room")
	}
	if err != nil {
		w.log.WithError(err).Warn("make room")
	}
}

// space is Space, and logs what it reaps.
func (w *worker) space(st *store.Store) *store.Space {
	sp := Space(w.cfg, st)
	sp.Reap = func(ctx context.Context) {
		reaped, err := Reap(ctx, w.cfg)
		if len(reaped) > 0 {
			w.log.WithField("jobs", reaped).Warn("ended what jobs left whose epilog never ran")
		}
		if err != nil {
			w.log.WithError(err).Warn("look for jobs whose epilog never ran")
		}
	}
	sp.Evicted = func(e store.Entry) {
		w.cfg.note(metrics.Event{Evicted: 1, EvictedBytes: e.Size}) // added up with the rest
	}
	return sp
}

// reserveFunc makes room for so many bytes.
type reserveFunc func(ctx context.Context, bytes int64) error

// A fullError is a failure of the fetcher's because the disk was full.
type fullError struct{ error }

// Unwrap returns the failure.
func (e *fullError) Unwrap() error { return e.error }

// grant answers a fetcher that needs so many bytes. It asks once.
func (f *fetcher) grant(ctx context.Context, bytes int64, answers io.Writer) error {
	if f.reserve == nil || f.asked || bytes < 0 {
		return fmt.Errorf("the fetcher may not ask for %d bytes now", bytes)
	}
	f.asked = true
	if f.refusal = f.reserve(ctx, bytes); f.refusal != nil {
		return f.refusal
	}
	_, err := io.WriteString(answers, goOn)
	return err
}

// limitFiles bounds, in bytes, the files that this process and all that it
// starts may write from now on; zero is no bound. What is too large fails with
// EFBIG.
func limitFiles(bytes int64) error {
	if bytes <= 0 {
		return nil
	}
	signal.Ignore(unix.SIGXFSZ)
	limit := unix.Rlimit{Cur: uint64(bytes), Max: uint64(bytes)}
	return os.NewSyscallError("setrlimit", unix.Setrlimit(unix.RLIMIT_FSIZE, &limit))
}

// collectIfShort starts a process that makes room when little of the store's
// disk is free, and leaves it: an epilog has no time for that. One at a time.
func collectIfShort(cfg Config) error {
	st, err := store.OpenExisting(cfg.StoreDir)
	if err != nil || cfg.Limits.MinFree <= 0 || !Space(cfg, st).Short() {
		return nil // no store, no matter
	}
	lock, err := os.OpenFile(filepath.Join(cfg.RunDir, "gc.lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer lock.Close() // the process has it, too
	err = unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil
	}
	if err != nil {
		return os.NewSyscallError("flock", err)
	}
	log, err := os.OpenFile(filepath.Join(cfg.RunDir, "gc.log"), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	args := cfg.command("gc")
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env, cmd.Dir, cmd.Stdout, cmd.Stderr = jobstate.Environment(), "/", log, log
	cmd.ExtraFiles = []*os.File{lock}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start gc: %w", err)
	}
	return cmd.Process.Release()
}
