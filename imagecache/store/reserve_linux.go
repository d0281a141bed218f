package store

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/berth-hpc/berth/fault"
)

// spaceLock is the lock file of those who decide about space. No image's key
// has this name.
const spaceLock = "space"

// lockSpace waits for the right to decide about the store's space.
func (s *Store) lockSpace(ctx context.Context) (unlock func(), err error) {
	f, err := s.openLock(spaceLock)
	if err != nil {
		return nil, siteError("lock the space of store", s.root, err)
	}
	if err := waitLock(ctx, f, nil); err != nil {
		f.Close()
		return nil, fault.Wrap("wait for the space of store", s.root, fault.Site,
			"another process makes room in this store; wait for it, or end it", err)
	}
	return func() { f.Close() }, nil
}

// reserve notes in the lock file how many bytes the lock's holder will write.
func (l *Lock) reserve(bytes int64) error {
	if err := l.file.Truncate(0); err != nil {
		return err
	}
	_, err := l.file.WriteAt(fmt.Appendf(nil, "%d\n", bytes), 0)
	return err
}

// forgetReservation empties the lock file: of what this holder has reserved,
// or a dead one. If it cannot, the reservation ends with the lock all the same.
func (l *Lock) forgetReservation() {
	if info, err := l.file.Stat(); err == nil && info.Size() > 0 {
		_ = l.file.Truncate(0)
	}
}

// reservations adds up what the holders of other locks than key's have
// reserved, and how much of it they have not written yet. What a dead process
// left does not count: the kernel has dropped its lock.
func (s *Store) reservations(key string) (reserved, pending int64) {
	entries, _ := os.ReadDir(s.locksDir())
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || info.Size() == 0 || e.Name() == spaceLock || e.Name() == key {
			continue
		}
		n := s.reservation(e.Name())
		reserved += n
		pending += max(n-s.written(e.Name()), 0)
	}
	return reserved, pending
}

// reservation reads what the holder of key's lock has reserved.
func (s *Store) reservation(key string) int64 {
	f, err := s.openLock(key)
	if err != nil {
		return 0
	}
	defer f.Close()
	if free, err := tryLock(f); err != nil || free {
		return 0
	}
	text := make([]byte, 32)
	n, _ := f.ReadAt(text, 0)
	bytes, err := strconv.ParseInt(strings.TrimSpace(string(text[:n])), 10, 64)
	if err != nil || bytes < 0 {
		return 0
	}
	return bytes
}

// written is the size of the squashfs files on their way in under key. What
// else a conversion writes does not count: the account owns those folders, and
// nobody follows its names.
func (s *Store) written(key string) (bytes int64) {
	files, _ := filepath.Glob(filepath.Join(s.tmpDir(), key+".*", RootfsName))
	for _, file := range files {
		if info, err := os.Lstat(file); err == nil && info.Mode().IsRegular() {
			bytes += info.Size()
		}
	}
	return bytes
}

// DiskSize is the size in bytes of the file system that holds the folder dir,
// or will when it is made.
func DiskSize(dir string) (int64, error) {
	for {
		var st unix.Statfs_t
		err := unix.Statfs(dir, &st)
		if err == nil {
			return int64(st.Blocks) * st.Bsize, nil
		}
		up := filepath.Dir(dir)
		if err != unix.ENOENT || up == dir {
			return 0, siteError("look at the disk of", dir, err)
		}
		dir = up
	}
}

// free is how much an ordinary user may still write.
func (s *Store) free() (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(s.imagesDir(), &st); err != nil {
		return 0, siteError("look at the disk of", s.root, err)
	}
	return int64(st.Bavail) * st.Bsize, nil
}
