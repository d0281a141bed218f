package store

import (
	"context"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// errBusy says that somebody pulls, unpacks or removes the image just now.
var errBusy = &InUseError{By: []string{"a process that pulls, unpacks or removes it"}}

// errKept says that somebody keeps the image.
var errKept = &InUseError{By: []string{"those who keep it"}}

// Discard takes im out of the store, with its unpacked tree, unless somebody
// uses it: then the error is an InUseError. It waits for nobody, and does not
// care who keeps im.
func (s *Store) Discard(ctx context.Context, im Image, users Users) error {
	return s.discard(ctx, im, users, func(lock *Lock) error {
		_, err := lock.setAside(im)
		return err
	})
}

// evict is Discard for an image that nobody keeps. A keep that is written
// meanwhile is seen before the image's name is taken away, or after it: then
// the name is given back.
func (s *Store) evict(ctx context.Context, im Image, users Users) error {
	return s.discard(ctx, im, users, func(lock *Lock) error {
		if s.Kept(im) != nil {
			return errKept
		}
		moved, err := lock.setAside(im)
		s.did("set aside")
		if err == nil && s.Kept(im) != nil {
			err = errors.Join(errKept, putBack(moved))
		}
		return err
	})
}

// discard calls remove, which sets im aside, while nobody uses it.
func (s *Store) discard(ctx context.Context, im Image, users Users, remove func(*Lock) error) (err error) {
	lock, err := s.tryLockKey(im.Key())
	if err != nil {
		return err
	}
	if lock == nil {
		return errBusy
	}
	// Release removes what was set aside.
	defer func() { err = errors.Join(err, lock.Release()) }()
	return users.IfUnused(ctx, im, func() error { return remove(lock) })
}

// Remove takes im out of the store, whoever uses it: those who have the file
// open or mounted keep it.
func (l *Lock) Remove(im Image) error {
	if _, err := l.setAside(im); err != nil {
		return err
	}
	l.store.removeWork(l.key)
	return nil
}

// A moved folder was renamed.
type moved struct{ from, to string }

// setAside takes the names of im and its tree away, by renames alone, which
// work on a full disk, too. What they named is the lock's to remove; after a
// crash sweep does.
func (l *Lock) setAside(im Image) (all []moved, err error) {
	for _, path := range []string{im.dir, filepath.Join(l.store.treesDir(), im.Key())} {
		m := moved{path, filepath.Join(l.store.newDir(), l.key+"."+rand.Text())}
		rerr := unix.Rename(m.from, m.to)
		switch {
		case rerr == nil:
			all = append(all, m)
		case !errors.Is(rerr, unix.ENOENT):
			err = errors.Join(err, &os.LinkError{Op: "rename", Old: m.from, New: m.to, Err: rerr})
		}
	}
	if err == nil {
		err = syncDir(l.store.imagesDir())
	}
	return all, siteError("remove image", im.digest.String(), err)
}

// putBack undoes setAside. What has the name again meanwhile is as good.
func putBack(all []moved) error {
	var err error
	for _, m := range all {
		rerr := unix.Rename(m.to, m.from)
		if rerr != nil && !errors.Is(rerr, unix.ENOTEMPTY) && !errors.Is(rerr, unix.EEXIST) {
			err = errors.Join(err, &os.LinkError{Op: "rename", Old: m.to, New: m.from, Err: rerr})
		}
	}
	return siteError("put back", "the image", err)
}
