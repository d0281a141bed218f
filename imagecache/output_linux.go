package imagecache

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// An output is a file that appears under its name complete or not at all. The
// file has no name until then, so that nothing is left of a process that is
// killed; where the file system cannot do that it has one that begins with a dot.
type output struct {
	*os.File
	path  string
	named string // "" while the file has no name
}

// newOutput begins the file that is to be path. The caller calls discard in
// any case.
func newOutput(path string) (*output, error) {
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return nil, &fs.PathError{Op: "replace", Path: path, Err: errors.New("it is no regular file")}
	}
	dir := filepath.Dir(path)
	f, err := os.OpenFile(dir, unix.O_TMPFILE|os.O_RDWR, 0o666)
	if err == nil {
		return &output{File: f, path: path}, nil
	}
	if !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EISDIR) && !errors.Is(err, unix.EINVAL) {
		return nil, err
	}
	named, err := unusedName(path)
	if err != nil {
		return nil, err
	}
	if f, err = os.OpenFile(named, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o666); err != nil {
		return nil, err
	}
	return &output{File: f, path: path, named: named}, nil
}

// unusedName is a name beside path that nothing has.
func unusedName(path string) (string, error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".berth-*")
	if err != nil {
		return "", err
	}
	return f.Name(), errors.Join(f.Close(), os.Remove(f.Name()))
}

// procPath is a path to the file as it is open, for those who take paths.
func (o *output) procPath() string { return fmt.Sprintf("/proc/self/fd/%d", o.Fd()) }

// commit gives the file its name when its content is on disk.
func (o *output) commit() error {
	if err := o.Sync(); err != nil {
		return err
	}
	if o.named == "" {
		named, err := unusedName(o.path)
		if err != nil {
			return err
		}
		if err := unix.Linkat(unix.AT_FDCWD, o.procPath(), unix.AT_FDCWD, named, unix.AT_SYMLINK_FOLLOW); err != nil {
			return &os.LinkError{Op: "link", Old: "the new file", New: named, Err: err}
		}
		o.named = named
	}
	if err := os.Rename(o.named, o.path); err != nil {
		return err
	}
	o.named = ""
	return syncFolder(filepath.Dir(o.path))
}

// discard closes the file, and removes it if it was not committed.
func (o *output) discard() {
	if o.named != "" {
		_ = os.Remove(o.named)
	}
	_ = o.Close()
}

// syncFolder makes the names in dir survive a crash.
func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
