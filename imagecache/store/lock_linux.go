package store

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berth-hpc/berth/fault"
)

// lockPoll is how often a waiting process asks for the lock again. flock(2)
// has no time-out and cannot be cancelled, so waiting is asking.
const lockPoll = 50 * time.Millisecond

// A Lock is the right to convert one image. The kernel drops it when the
// process that holds it ends, however it ends; in a cluster's store the others
// find out by themselves (linker).
type Lock struct {
	store *Store
	key   string
	file  *os.File
	link  *heldLink // instead of file, in a cluster's store
}

// Lock waits for the right to convert d, until ctx ends, and then removes what
// a dead holder left behind. Look again with Get after it returns:
// whoever held the lock before may have published the image. waiting, which
// may be nil, is called once if somebody else holds the lock.
func (s *Store) Lock(ctx context.Context, d Digest, waiting func()) (*Lock, error) {
	f, err := s.openLock(Key(d))
	if err != nil {
		return nil, siteError("lock image", d.String(), err)
	}
	if err := waitLock(ctx, f, waiting); err != nil {
		f.Close()
		return nil, fault.Wrap("wait for another pull of", d.String(), fault.Site,
			"another process on this machine is pulling this image; wait for it, or end it", err)
	}
	l := &Lock{store: s, key: Key(d), file: f}
	l.forgetReservation()
	s.sweep(l.key)
	return l, nil
}

// tryLockKey is Lock for any policy's image, which does not wait: it returns
// nil when somebody holds the lock.
func (s *Store) tryLockKey(key string) (*Lock, error) {
	f, err := s.openLock(key)
	if err != nil {
		return nil, siteError("lock image", key, err)
	}
	free, err := tryLock(f)
	if err != nil || !free {
		f.Close()
		return nil, siteError("lock image", key, err)
	}
	l := &Lock{store: s, key: key, file: f}
	l.forgetReservation()
	return l, nil
}

// TempDir makes an empty folder below tmp for the conversion, writable by
// uid and gid only. Pass os.Geteuid and os.Getegid for a store of one's own;
// root passes those of the account that pulls. It is removed by Release.
func (l *Lock) TempDir(uid, gid int) (string, error) {
	dir, err := os.MkdirTemp(l.store.tmpDir(), l.workPrefix())
	if err != nil {
		return "", siteError("make work folder in", l.store.tmpDir(), err)
	}
	if uid != os.Geteuid() || gid != os.Getegid() {
		err = os.Chown(dir, uid, gid)
	}
	return dir, siteError("make work folder", dir, err)
}

// Empty removes the lock's work folders, so that the conversion can start over
// in another one.
func (l *Lock) Empty() error {
	if l.link != nil {
		l.store.removeLinked(l.workPrefix())
	} else {
		l.store.removeWork(l.key)
	}
	for _, dir := range []string{l.store.tmpDir(), l.store.newDir()} {
		if left, _ := filepath.Glob(filepath.Join(dir, l.workPrefix()+"*")); len(left) > 0 {
			return siteError("remove", left[0], unix.ENOTEMPTY)
		}
	}
	return nil
}

// Release removes the lock's work folders and its reservation and gives the
// lock back. The lock file stays: removing it would let two processes hold
// "the" lock at once.
func (l *Lock) Release() error {
	if l.link != nil {
		l.store.removeLinked(l.workPrefix())
		return l.link.release()
	}
	l.store.removeWork(l.key)
	l.forgetReservation()
	return siteError("release the lock of image", l.key, l.file.Close())
}

func (s *Store) openLock(key string) (*os.File, error) {
	if s.shared {
		return nil, errors.New("a store that nodes share is not locked by flock")
	}
	return os.OpenFile(filepath.Join(s.locksDir(), key), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
}

// tryLock reports whether it got the lock.
func tryLock(f *os.File) (bool, error) {
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil:
			return true, nil
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EWOULDBLOCK):
			return false, nil
		default:
			return false, err
		}
	}
}

func waitLock(ctx context.Context, f *os.File, waiting func()) error {
	tick := time.NewTicker(lockPoll)
	defer tick.Stop()
	for {
		ok, err := tryLock(f)
		if err != nil || ok {
			return err
		}
		if waiting != nil {
			waiting()
			waiting = nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// sweep removes the work folders of key, whose lock the caller holds, and of
// every other image whose lock nobody holds. What it cannot remove stays for
// the next sweep.
func (s *Store) sweep(key string) {
	s.removeWork(key)
	for _, other := range s.workKeys() {
		if other != key {
			s.sweepIfFree(other)
		}
	}
}

func (s *Store) sweepIfFree(key string) {
	f, err := s.openLock(key)
	if err != nil {
		return
	}
	defer f.Close()
	if ok, err := tryLock(f); err == nil && ok {
		s.removeWork(key)
	}
}

// workKeys returns the keys that have a work folder.
func (s *Store) workKeys() []string {
	seen := map[string]bool{}
	var keys []string
	for _, dir := range []string{s.tmpDir(), s.newDir()} {
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			// "<hex>.<policy>.<random>"
			if i := strings.LastIndexByte(e.Name(), '.'); i > 0 && !seen[e.Name()[:i]] {
				seen[e.Name()[:i]] = true
				keys = append(keys, e.Name()[:i])
			}
		}
	}
	return keys
}

// removeWork removes every work folder of key. The caller holds key's lock.
func (s *Store) removeWork(key string) {
	for _, dir := range []string{s.tmpDir(), s.newDir()} {
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			if strings.HasPrefix(e.Name(), key+".") {
				_ = os.RemoveAll(filepath.Join(dir, e.Name()))
			}
		}
	}
}
