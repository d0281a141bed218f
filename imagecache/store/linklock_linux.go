package store

import (
	"context"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// A linker gives out locks that need nothing of a file system but link(2) and
// rename(2): on Lustre and NFS flock(2) may be missing, or hold on one node
// only.
//
//	<key>.lock        the lock: a lockFile; having its name is having the lock
//	.<key>.<random>   on its way to or from that name; garbage if anybody dies
//	<key>.failed      why the last holder gave up (failure.go)
//
// The holder renews its file every few seconds. Whoever waits looks again
// after 1 to 5 s and takes the lock from a holder that is certainly dead, or
// whose file has not changed for the time stale on the waiter's own clock: no
// two clocks are compared. A holder that was only slow then finds its lock
// gone and stops. For a moment two may believe that they hold it; then both do
// the work, and publishing, a rename, lets one of the two equal images count.
type linker struct {
	dir      string // locks/
	self     Holder // without ID
	stale    time.Duration
	patience time.Duration // see ClusterOptions
}

// beatsPerStale is how often a holder renews within the time after which it
// counts as dead; half a minute without a word is nothing unusual on a busy
// file system.
const beatsPerStale = 12

// fastestPoll is the part of stale after which a waiter looks for the first
// time; then ever later, up to one beat.
const fastestPoll = 60

func (l *linker) path(key string) string { return filepath.Join(l.dir, key+".lock") }

// aside is a name that nobody else uses.
func (l *linker) aside(key string) string { return filepath.Join(l.dir, "."+key+"."+randomID()) }

// wait returns when key's lock is free, or its holder dead; clear then takes
// a dead one away and is nil for those who may not write. tell hears each time
// who holds it.
func (l *linker) wait(ctx context.Context, key string, clear bool, tell func(lockFile)) error {
	seen, pause := watch{limit: l.stale}, l.stale/fastestPoll
	for {
		f, err := l.read(ctx, key)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return err
		case f.holder.gone(l.self) || seen.stale(f):
			if !clear {
				return nil
			}
			err = l.takeAway(key, f.head)
		default:
			tell(f)
			err = sleep(ctx, pause/2+rand.N(pause/2+1))
			pause = min(pause*3/2, l.stale/beatsPerStale)
		}
		if err != nil {
			return err
		}
	}
}

// try takes key's lock if it is free; nil if somebody else was faster.
func (l *linker) try(key string) (*heldLink, error) {
	self := l.self
	self.ID = randomID()
	own := l.aside(key)
	f, err := os.OpenFile(own, os.O_RDWR|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o644)
	if err != nil {
		return nil, err
	}
	defer os.Remove(own) // the lock's name is another
	file := newLockFile(self)
	_, err = f.Write(file.bytes())
	if err = errors.Join(err, f.Chmod(0o644), f.Sync()); err == nil {
		err = linkOnce(own, l.path(key))
	}
	if err != nil {
		f.Close()
		if errors.Is(err, fs.ErrExist) || errors.Is(err, fs.ErrNotExist) {
			return nil, nil // or one who swept took the file away
		}
		return nil, err
	}
	h := &heldLink{linker: l, key: key, file: f, is: file, lost: make(chan struct{}), stop: make(chan struct{}), stopped: make(chan struct{})}
	go h.keep()
	return h, nil
}

// linkOnce is link(2) with the truth about its outcome: over NFS an answer may
// be lost and the repeated request find its own link. The number of links,
// asked for by a new open, does not lie.
func linkOnce(from, to string) error {
	err := unix.Link(from, to)
	if err == nil {
		return nil
	}
	f, oerr := openRegular(from)
	if oerr != nil {
		return errors.Join(err, oerr)
	}
	defer f.Close()
	var st unix.Stat_t
	if unix.Fstat(int(f.Fd()), &st) == nil && st.Nlink == 2 {
		return nil
	}
	return os.NewSyscallError("link", err)
}

// takeAway removes key's lock if its file begins with head. Another's that was
// in its place is put back. The rename lets one of many takers win.
func (l *linker) takeAway(key, head string) error {
	aside := l.aside(key)
	err := os.Rename(l.path(key), aside)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // given back, or another took it
	}
	if err != nil {
		return err
	}
	defer os.Remove(aside)
	got, err := readLockFile(aside)
	if err != nil || got.head == head {
		return err
	}
	err = linkOnce(aside, l.path(key))
	if errors.Is(err, fs.ErrExist) {
		return nil // a third has it: the second will see
	}
	return err
}

func (l *linker) read(ctx context.Context, key string) (lockFile, error) {
	return patiently(ctx, l.patience, func() (lockFile, error) { return readLockFile(l.path(key)) })
}

// sweep removes what the dead left on the way to or from key's lock. A living
// one whose file goes tries again.
func (l *linker) sweep(key string) {
	left, _ := filepath.Glob(filepath.Join(l.dir, "."+key+".*"))
	for _, path := range left {
		_ = os.Remove(path)
	}
}

// A watch says how long a lock's file has not changed, by the watcher's clock.
type watch struct {
	limit time.Duration
	last  string
	since time.Time
	looks int
}

// stale wants several looks besides the time: one who was stopped for a
// minute has seen nothing in it.
func (w *watch) stale(f lockFile) bool {
	if now := f.head + f.tail; now != w.last {
		w.last, w.since, w.looks = now, time.Now(), 0
		return false
	}
	w.looks++
	return w.looks >= 3 && time.Since(w.since) >= w.limit
}

// A heldLink is a lock that this process holds.
type heldLink struct {
	linker        *linker
	key           string
	file          *os.File
	is            lockFile
	progress      atomic.Pointer[string]
	lost          chan struct{} // closed when somebody took it away
	beats         uint64        // written so far, and
	missing       int           // looks in a row that did not find the lock: keep's
	stop, stopped chan struct{}
}

// keep renews the lock until release, or until it is lost.
func (h *heldLink) keep() {
	defer close(h.stopped)
	tick := time.NewTicker(h.linker.stale / beatsPerStale)
	defer tick.Stop()
	for {
		select {
		case <-h.stop:
			return
		case <-tick.C:
		}
		if h.renew(); h.missing == 2 { // once may be a taker that puts it back
			close(h.lost)
			return
		}
	}
}

// renew writes the next beat and counts how often in a row the lock was not
// owned any more. A file system that fails says nothing about that.
func (h *heldLink) renew() {
	h.beats++
	text := ""
	if p := h.progress.Load(); p != nil {
		text = *p
	}
	if _, err := h.file.WriteAt([]byte(newTail(h.beats, text)), lockHalf); err == nil {
		_ = h.file.Sync()
	}
	h.missing++
	if h.owned() {
		h.missing = 0
	}
}

// owned says whether the lock is still this one, as far as can be seen.
func (h *heldLink) owned() bool {
	now, err := readLockFile(h.linker.path(h.key))
	if err != nil {
		return !errors.Is(err, fs.ErrNotExist)
	}
	return now.head == h.is.head
}

func (h *heldLink) release() error {
	close(h.stop)
	<-h.stopped
	return errors.Join(h.linker.takeAway(h.key, h.is.head), h.file.Close())
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}

// clip makes text fit into a lock's file.
func clip(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "")
}
