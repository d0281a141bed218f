package changes

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// Remove removes the container, whose lock the caller holds. It is gone from
// the list at once.
func (c *Container) Remove() error {
	gone, err := os.MkdirTemp(filepath.Dir(c.dir), ".gone-")
	if err == nil {
		err = errors.Join(os.Rename(c.dir, filepath.Join(gone, "container")), removeTree(gone))
	}
	return siteError("remove container", c.Name, err)
}

// Sweep removes what makers and removers left that were killed.
func (cs Containers) Sweep() {
	for _, pattern := range []string{".gone-*", ".new-*"} {
		left, _ := filepath.Glob(filepath.Join(cs.dir, pattern))
		for _, dir := range left {
			sweep(dir)
		}
	}
}

// sweepAge is how old a folder is that nobody can be about to lock any more.
const sweepAge = 10 * time.Minute

// sweep leaves alone what somebody is making: they hold the lock.
func sweep(dir string) {
	if info, err := os.Lstat(dir); err != nil || time.Since(info.ModTime()) < sweepAge {
		return
	}
	if l, err := openLock(dir); err == nil {
		if ok, err := l.try(); err == nil && ok {
			_ = removeTree(dir)
		}
		_ = l.Release()
	}
}

// removeTree removes dir with all that is in it, also what its owner took
// their own rights on away from.
func removeTree(dir string) error {
	err := os.RemoveAll(dir)
	if !errors.Is(err, fs.ErrPermission) {
		return err
	}
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if d != nil && d.IsDir() {
			_ = os.Chmod(path, 0o700) // before it is read
		}
		return nil
	})
	return os.RemoveAll(dir)
}
