package changes

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/berth-hpc/berth/fault"
	"golang.org/x/sys/unix"
)

// ErrInUse is the cause when another process uses a container.
var ErrInUse = errors.New("it is in use")

// A Lock is the right to use a container alone. It ends when the last
// descriptor of File is closed: processes that inherit it keep it.
type Lock struct{ File *os.File }

// Release gives the lock back, unless another process holds File, too.
func (l *Lock) Release() error { return l.File.Close() }

// The server of an image ends a moment after the last process of the
// container, so the one command after the other waits that long.
const (
	settle     = 2 * time.Second
	settlePoll = 10 * time.Millisecond
)

// Lock takes the container's lock, or returns an error that is ErrInUse: it
// waits for settle, not for a command to end. A container counts as in use,
// too, while a process of the caller's is in it, whatever became of the lock's
// descriptors. Mount points that the last run left among the changes are gone
// afterwards.
func (c *Container) Lock(ctx context.Context) (*Lock, error) {
	l, err := openLock(c.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, c.inUse("it is being removed")
	}
	if err != nil {
		return nil, siteError("lock container", c.Name, err)
	}
	tick := time.NewTicker(settlePoll)
	defer tick.Stop()
	deadline := time.After(settle)
	for {
		if err = c.take(l); !errors.Is(err, ErrInUse) {
			break
		}
		select {
		case <-tick.C:
			continue
		case <-ctx.Done():
			err = context.Cause(ctx)
		case <-deadline:
		}
		break
	}
	if err != nil {
		return nil, errors.Join(err, l.Release())
	}
	return l, nil
}

// Note writes down for whom the container is used, for UsedBy.
func (l *Lock) Note(job string) error {
	_, err := l.File.WriteAt([]byte(job), 0)
	return err
}

// UsedBy returns what Note wrote for the last use, "" for nothing. It is only
// for people to read.
func (c *Container) UsedBy() string {
	f, err := os.OpenFile(filepath.Join(c.dir, lockName), os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return ""
	}
	defer f.Close()
	text, _ := io.ReadAll(io.LimitReader(f, maxName))
	return fault.Clean(string(text))
}

// InUse reports whether Lock would say that the container is in use. It is only
// for people to read: a moment later that may have changed.
func (c *Container) InUse() bool {
	l, err := openLock(c.dir)
	if err != nil {
		return false
	}
	ok, err := l.try()
	return l.Release() == nil && err == nil && (!ok || userOf(c.Upper()) != 0)
}

func (c *Container) take(l *Lock) error {
	ok, err := l.try()
	if err != nil {
		return siteError("lock container", c.Name, err)
	}
	if !ok {
		return c.inUse("another command on this machine uses it")
	}
	if gone, err := l.moved(c.dir); err != nil || gone {
		return c.inUse("it is being removed")
	}
	if pid := userOf(c.Upper()); pid != 0 {
		_ = unix.Flock(int(l.File.Fd()), unix.LOCK_UN)
		return c.inUse(fmt.Sprintf("process %d runs in it", pid))
	}
	now := time.Now()
	return siteError("lock container", c.Name, errors.Join(c.removePoints(), l.File.Truncate(0), os.Chtimes(filepath.Join(c.dir, lockName), now, now)))
}

func (c *Container) inUse(how string) error {
	return &fault.Error{
		Op: "use container", Arg: c.Name, Blame: fault.User, Err: fmt.Errorf("%w: %s", ErrInUse, how),
		Remedy: "wait for it to end, end it, or take another name; a container is used by one command at a time",
	}
}

func openLock(dir string) (*Lock, error) {
	f, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	return &Lock{File: f}, nil
}

// try reports whether it got the lock.
func (l *Lock) try() (bool, error) {
	for {
		err := unix.Flock(int(l.File.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EWOULDBLOCK):
			return false, nil
		}
		return err == nil, err
	}
}

// moved reports whether the locked file is not dir's any more.
func (l *Lock) moved(dir string) (bool, error) {
	ours, err := l.File.Stat()
	if err != nil {
		return false, err
	}
	named, err := os.Lstat(filepath.Join(dir, lockName))
	return err != nil || !os.SameFile(ours, named), nil
}

// userOf returns a process of the caller's in whose mount namespace upper is
// the upper folder of an overlay; 0 if there is none. It costs a look at
// each of the caller's mount namespaces.
func userOf(upper string) int {
	entries, _ := os.ReadDir("/proc")
	seen := map[string]bool{}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		info, err := e.Info()
		if err != nil || int(info.Sys().(*syscall.Stat_t).Uid) != os.Geteuid() {
			continue
		}
		namespace, err := os.Readlink(filepath.Join("/proc", e.Name(), "ns/mnt"))
		if err != nil || seen[namespace] {
			continue
		}
		seen[namespace] = true
		if mounts(filepath.Join("/proc", e.Name(), "mountinfo"), upper) {
			return pid
		}
	}
	return 0
}

// mounts reports whether a mount in the file mountinfo has this upper folder.
func mounts(mountinfo, upper string) bool {
	f, err := os.Open(mountinfo)
	if err != nil {
		return false
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		_, options, _ := strings.Cut(lines.Text(), " - overlay ")
		for _, option := range strings.Split(options, ",") {
			if dir, ok := strings.CutPrefix(option, "upperdir="); ok && plain(dir) == upper {
				return true
			}
		}
	}
	return false
}

// plain undoes how mountinfo, and overlay's options, write a path: octal
// numbers after a backslash, and a backslash before colons and commas.
func plain(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return strings.NewReplacer(`\\`, `\`, `\:`, ":", `\,`, ",").Replace(b.String())
}
