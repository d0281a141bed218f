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

// Discard takes im out of the store, with its unpacked tree, unless somebody
// uses it: then the error is an InUseError. It waits for nobody.
func (s *Store) Discard(ctx context.Context, im Image, users Users) (err error) {
	lock, err := s.tryLockKey(im.Key())
	if err != nil {
		return err
	}
	if lock == nil {
		return errBusy
	}
	// Release removes what was set aside.
	defer func() { err = errors.Join(err, lock.Release()) }()
	return users.IfUnused(ctx, im, func() error { return lock.setAside(im) })
}

// Remove takes im out of the store, whoever uses it: those who have the file
// open or mounted keep it.
func (l *Lock) Remove(im Image) error {
	if err := l.setAside(im); err != nil {
		return err
	}
	l.store.removeWork(l.key)
	return nil
}

// setAside takes the names of im and its tree away, by renames alone, which
// work on a full disk, too. What they named is the lock's to remove; after a
// crash sweep does.
func (l *Lock) setAside(im Image) error {
	err := errors.Join(l.moveOut(im.dir), l.moveOut(filepath.Join(l.store.treesDir(), im.Key())))
	if err == nil {
		err = syncDir(l.store.imagesDir())
	}
	return siteError("remove image", im.digest.String(), err)
}

func (l *Lock) moveOut(path string) error {
	err := unix.Rename(path, filepath.Join(l.store.newDir(), l.key+"."+rand.Text()))
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return &os.LinkError{Op: "rename", Old: path, New: l.store.newDir(), Err: err}
	}
	return nil
}
