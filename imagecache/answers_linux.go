package imagecache

import (
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// readOwn reads an answer of this user's: nobody else may have put it there. A
// cache folder may have been set to be where others can write.
func (a Answers) readOwn(path string) ([]byte, error) {
	dir, err := os.Lstat(a.dir)
	if err == nil && (!dir.IsDir() || !ownedByUs(dir)) {
		err = fs.ErrPermission
	}
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err == nil && (!info.Mode().IsRegular() || !ownedByUs(info)) {
		err = fs.ErrPermission
	}
	if err != nil {
		return nil, err
	}
	return readLimited(f, maxManifest)
}

// ownedByUs reports whether a file or folder belongs to this process's user, and
// nobody else may write to it.
func ownedByUs(info fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(st.Uid) == os.Geteuid() && info.Mode().Perm()&0o022 == 0
}
