package prolog

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berth-hpc/berth/imagecache/store"
	"github.com/berth-hpc/berth/launcher"
	"github.com/berth-hpc/berth/prolog/jobstate"
)

// An image whose file changed on disk gives its tasks EIO, or wrong bytes:
// nobody hashes it at each start, which would read all of it. What the kernel
// does notice, it logs, without the name of the image. So once the log has a
// new line about squashfs, every image of the store is verified before its
// next job, and pulled again if it is damaged. So is one that cannot be
// mounted.

// suspect says whether the kernel met a damaged squashfs since im was verified.
func (w *worker) suspect(im store.Image) bool {
	last := lastSquashfsError()
	if last == 0 {
		return false
	}
	data, err := os.ReadFile(verifiedPath(w.cfg.RunDir, im))
	if err != nil {
		return true // not since the boot: the folder is memory
	}
	then, err := strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64)
	return err != nil || last > time.Duration(then)
}

func verifiedPath(runDir string, im store.Image) string {
	return filepath.Join(runDir, "verified", store.Key(im.Digest()))
}

// verified uses im if its file is what was published, else pulls it again.
func (w *worker) verified(ctx context.Context, st *store.Store, im store.Image) (*jobstate.Ready, error) {
	last := lastSquashfsError() // an error while we read counts next time
	err := im.Verify(ctx)
	if errors.Is(err, store.ErrDamaged) {
		w.log.WithError(err).Error("the kernel reported squashfs errors")
		return w.replace(ctx, st, im)
	}
	if err != nil {
		return nil, err
	}
	w.noteGood(im, last)
	return w.use(ctx, st, im)
}

// noteGood remembers that no error up to last is about im.
func (w *worker) noteGood(im store.Image, last time.Duration) {
	path := verifiedPath(w.cfg.RunDir, im)
	note := fmt.Appendf(nil, "%d\n", int64(last))
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, note, 0o600)); err != nil {
		w.log.WithError(err).Warn("note that the image is good") // it is verified again
	}
}

// use leases and mounts im. If it is no file system, an image that was in the
// store is pulled again, once. One that was pulled just now is the kernel's or
// Berth's fault: then it is only removed, for the next job to try again.
func (w *worker) use(ctx context.Context, st *store.Store, im store.Image) (*jobstate.Ready, error) {
	if w.inPlace != nil {
		ready, err := w.useInPlace(ctx, im.Digest())
		if err != nil && ctx.Err() == nil {
			return w.insteadOfInPlace(ctx, st, im.Digest(), err)
		}
		return ready, err
	}
	ready, err := w.useImage(ctx, im)
	switch {
	case !errors.Is(err, launcher.ErrBadImage):
		return ready, err
	case w.hit:
		return w.replace(ctx, st, im)
	}
	return nil, errors.Join(err, w.remove(ctx, st, im))
}

// replace pulls im again and uses what comes.
func (w *worker) replace(ctx context.Context, st *store.Store, im store.Image) (*jobstate.Ready, error) {
	im, err := w.pullAgain(ctx, st, im)
	if err != nil {
		return nil, err
	}
	w.hit, w.found = false, nil
	// Other jobs keep their copies of the damaged mount.
	err = withImages(ctx, w.cfg.RunDir, func(mounts *launcher.Mounts) error {
		return mounts.UnmountImage(ctx, store.Key(im.Digest()))
	})
	if err != nil {
		return nil, err
	}
	return w.use(ctx, st, im)
}

func (w *worker) pullAgain(ctx context.Context, st *store.Store, im store.Image) (store.Image, error) {
	if err := w.remove(ctx, st, im); err != nil {
		return store.Image{}, err
	}
	return w.pull(ctx, st, im.Digest())
}

// remove takes im out of the store, unless another worker has put a good one
// in its place since.
func (w *worker) remove(ctx context.Context, st *store.Store, im store.Image) error {
	lock, err := st.Lock(ctx, im.Digest(), nil)
	if err != nil {
		return err
	}
	defer func() { _ = lock.Release() }()
	now, err := os.Stat(im.Dir())
	if err != nil || w.found != nil && !os.SameFile(now, w.found) {
		return nil
	}
	return lock.Remove(im)
}

// lastSquashfsError is when the kernel last logged one, since the boot; zero
// for never, or where the log cannot be read.
func lastSquashfsError() time.Duration {
	fd, err := unix.Open("/dev/kmsg", unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0
	}
	defer unix.Close(fd)
	var last time.Duration
	buf := make([]byte, 8192) // a read gives one record, of at most so many bytes
	for {
		n, err := unix.Read(fd, buf)
		if errors.Is(err, unix.EPIPE) || errors.Is(err, unix.EINTR) {
			continue // overwritten before we came to it
		}
		if err != nil || n == 0 {
			return last
		}
		if t, ok := squashfsError(string(buf[:n])); ok {
			last = t
		}
	}
}

// squashfsError reads a record of /dev/kmsg: "priority,sequence,microseconds
// since the boot,flags;text" (Documentation/ABI/testing/dev-kmsg of Linux).
func squashfsError(record string) (time.Duration, bool) {
	head, text, _ := strings.Cut(record, ";")
	fields := strings.Split(head, ",")
	if len(fields) < 3 || !strings.HasPrefix(text, "SQUASHFS error:") {
		return 0, false
	}
	micro, err := strconv.ParseInt(fields[2], 10, 64)
	return time.Duration(micro) * time.Microsecond, err == nil
}
