package jobstate

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// TryLock takes the folder's lock, or returns nil when a process that
// prepares it holds it. The lock belongs to the open file (fcntl(2), open file
// description locks): it passes to a child with the descriptor, and ends with
// the last process that has it. Unlike flock(2) it can be looked at without
// being taken, so those who wait never get in the way of those who start.
func (f Folder) TryLock() (*os.File, error) {
	lock, err := os.OpenFile(filepath.Join(f.path, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	err = unix.FcntlFlock(lock.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK})
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
		lock.Close()
		return nil, nil
	}
	if err != nil {
		lock.Close()
		return nil, fmt.Errorf("lock %s: %w", f.path, err)
	}
	return lock, nil
}

// Busy says whether a process prepares the folder now.
func (f Folder) Busy() bool { return lockedByOther(filepath.Join(f.path, "lock")) }

func lockedByOther(path string) bool {
	lock, err := os.Open(path)
	if err != nil {
		return false
	}
	defer lock.Close()
	probe := unix.Flock_t{Type: unix.F_WRLCK}
	err = unix.FcntlFlock(lock.Fd(), unix.F_OFD_GETLK, &probe)
	return err == nil && probe.Type != unix.F_UNLCK
}
