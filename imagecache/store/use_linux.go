package store

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Users know who uses the images of a store. Everything that removes an image
// goes through them.
type Users interface {
	// Of names those who use im, for people; none when nobody does.
	Of(ctx context.Context, im Image) ([]string, error)
	// IfUnused calls remove, which takes im out of the store by a rename,
	// while nobody can begin to use im. Its error is an InUseError when
	// somebody does.
	IfUnused(ctx context.Context, im Image, remove func() error) error
}

// An InUseError says why an image cannot be removed.
type InUseError struct {
	By []string // jobs or processes, for people
}

// Error implements error.
func (e *InUseError) Error() string { return "it is in use by " + strings.Join(e.By, ", ") }

// Touch notes that im is used now, by the modification time of its squashfs
// file, whose data never changes. Only the store's owner can; it takes no lock
// and costs one system call.
func (im Image) Touch() error {
	now := unix.NsecToTimespec(time.Now().UnixNano())
	err := unix.UtimesNanoAt(unix.AT_FDCWD, im.Rootfs(), []unix.Timespec{now, now}, unix.AT_SYMLINK_NOFOLLOW)
	return siteError("note the use of image", im.digest.String(), err)
}

// LastUse is when im was published or last used.
func (im Image) LastUse() (time.Time, error) {
	info, err := os.Lstat(im.Rootfs())
	if err != nil {
		return time.Time{}, siteError("look at image", im.digest.String(), err)
	}
	return info.ModTime(), nil
}

// Use opens the squashfs file of an image in a store of the caller's own, and
// keeps the image there: the file carries a shared lock (flock(2)), which
// lives until the last process that inherited it has closed it. Where the file
// system knows no locks, the open file still can be read to the end. The error
// is ErrNotFound when the image has just been removed; pull it again.
func (im Image) Use(ctx context.Context) (*os.File, error) {
	f, err := openRegular(im.Rootfs())
	if err != nil {
		return nil, siteError("open image", im.digest.String(), missing(err))
	}
	err = share(ctx, f)
	if err == nil {
		err = im.stillHas(f)
	}
	if err != nil {
		f.Close()
		return nil, siteError("open image", im.digest.String(), err)
	}
	_ = im.Touch() // a full disk must not keep an image from running
	return f, nil
}

// missing makes ErrNotFound of an error that says so in the system's words.
func missing(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%w: %w", ErrNotFound, err)
	}
	return err
}

// share takes the shared lock of f. Those who look whether an image is in use
// hold the exclusive one for a moment, and those who remove it until it has no
// name any more.
func share(ctx context.Context, f *os.File) error {
	tick := time.NewTicker(lockPoll)
	defer tick.Stop()
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB)
		switch {
		case err == nil, noLocks(err):
			return nil
		case !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR):
			return os.NewSyscallError("flock", err)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// stillHas is ErrNotFound if f is not the image's file any more. Whoever removes
// an image has taken its name away before it gives the lock back.
func (im Image) stillHas(f *os.File) error {
	opened, err := f.Stat()
	if err != nil {
		return err
	}
	named, err := os.Lstat(im.Rootfs())
	if err != nil {
		return missing(err)
	}
	if !os.SameFile(opened, named) {
		return ErrNotFound
	}
	return nil
}

func noLocks(err error) bool {
	return errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOLCK)
}

// Processes are the Users of a store of one's own: those that hold what
// Image.Use returned, and those that see an image's unpacked tree.
type Processes struct{}

// Of implements Users.
func (p Processes) Of(ctx context.Context, im Image) ([]string, error) {
	var used *InUseError
	err := p.IfUnused(ctx, im, func() error { return nil })
	if errors.As(err, &used) {
		return used.By, nil
	}
	return nil, err
}

// IfUnused implements Users.
func (Processes) IfUnused(_ context.Context, im Image, remove func() error) error {
	f, free, err := tryExclusive(im.Rootfs())
	if f != nil {
		defer f.Close()
	}
	switch {
	case errors.Is(err, os.ErrNotExist): // only a part of an image is left
	case noLocks(err):
		return &InUseError{By: []string{"nobody knows whom: the file system has no locks"}}
	case err != nil:
		return siteError("look who uses image", im.digest.String(), err)
	case !free:
		return &InUseError{By: lockHolders(f)}
	}
	by, err := treeHolders(im.Tree())
	if err != nil {
		return siteError("look who uses image", im.digest.String(), err)
	}
	if len(by) > 0 {
		return &InUseError{By: by}
	}
	return remove()
}

// tryExclusive opens a file of the caller's own and says whether it got its
// exclusive lock.
func tryExclusive(path string) (f *os.File, free bool, err error) {
	if f, err = openRegular(path); err != nil {
		return nil, false, err
	}
	free, err = tryLock(f)
	if !errors.Is(err, unix.EBADF) {
		return f, free, err
	}
	f.Close() // NFS gives the exclusive lock to writers alone
	if f, err = reopenWritable(path); err != nil {
		return nil, false, err
	}
	free, err = tryLock(f)
	return f, free, err
}

// reopenWritable opens a file of the caller's own for writing that is 0444,
// and stays so. Nothing is written.
func reopenWritable(path string) (*os.File, error) {
	if err := os.Chmod(path, 0o644); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NOFOLLOW, 0)
	if err = errors.Join(err, os.Chmod(path, 0o444)); err != nil {
		f.Close() // nil is fine
		return nil, err
	}
	return f, nil
}

// lockHolders names the processes that hold a lock on f, as far as the kernel
// tells: the process that took the lock, not those that inherited it.
func lockHolders(f *os.File) []string {
	var st unix.Stat_t
	locks, err := os.Open("/proc/locks")
	if err == nil {
		defer locks.Close()
		err = unix.Fstat(int(f.Fd()), &st)
	}
	if err != nil {
		return []string{"a process"}
	}
	var by []string
	inode := ":" + strconv.FormatUint(st.Ino, 10)
	for lines := bufio.NewScanner(locks); lines.Scan(); {
		// "1: FLOCK  ADVISORY  READ 1234 fe:00:5678 0 EOF" (proc_locks(5))
		fields := strings.Fields(lines.Text())
		if len(fields) > 5 && fields[1] == "FLOCK" && strings.HasSuffix(fields[5], inode) {
			by = append(by, processName(fields[4]))
		}
	}
	if len(by) == 0 {
		return []string{"a process"}
	}
	return by
}

func processName(pid string) string {
	name, err := os.ReadFile(filepath.Join("/proc", pid, "comm"))
	if err != nil {
		return "what process " + pid + " left behind"
	}
	return fmt.Sprintf("process %s (%s)", pid, strings.TrimSpace(string(name)))
}
