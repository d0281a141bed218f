package store

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// PublishTree gives part, a folder in the lock's work folder that holds im's
// files, the name im.Tree, and brings all of it to disk before. That a tree is
// there already is no error.
func (l *Lock) PublishTree(part string, im Image) error {
	sync := l.store.syncAll
	if sync == nil {
		sync = syncFileSystem
	}
	err := sync(part)
	if err == nil {
		err = makeFolder(l.store.treesDir(), 0o700)
	}
	if err == nil {
		err = os.Rename(part, im.Tree())
	}
	if errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.EEXIST) {
		return nil
	}
	return siteError("store the unpacked image", im.digest.String(), err)
}

// syncFileSystem syncs all of the file system that dir is on: a tree has too
// many files to sync each.
func syncFileSystem(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return os.NewSyscallError("syncfs", unix.Syncfs(int(d.Fd())))
}
