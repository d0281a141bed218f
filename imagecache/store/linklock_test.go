package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"testing"
	"time"
)

func testLinker(t *testing.T, host string, stale time.Duration) *linker {
	t.Helper()
	self, err := thisProcess(host)
	if err != nil {
		t.Fatal(err)
	}
	return &linker{dir: t.TempDir(), self: self, stale: stale, patience: 10 * time.Second}
}

func (l *linker) as(host string) *linker {
	other := *l
	other.self.Host = host
	return &other
}

const lockedKey = "key.p1"

func takeIt(t *testing.T, l *linker) *heldLink {
	t.Helper()
	h, err := l.try(lockedKey)
	if err != nil || h == nil {
		t.Fatalf("not locked: %v, %v", h, err)
	}
	return h
}

func TestLinkLock(t *testing.T) {
	l := testLinker(t, "n1", time.Minute)
	h := takeIt(t, l)
	if again, err := l.try(lockedKey); again != nil || err != nil {
		t.Errorf("held twice: %v, %v", again, err)
	}
	if err := h.release(); err != nil {
		t.Error(err)
	}
	h = takeIt(t, l)
	defer h.release()
	if names, err := os.ReadDir(l.dir); err != nil || len(names) != 1 {
		t.Errorf("left: %v, %v", names, err)
	}
}

// Two saw the same dead holder. The slower one must not take the lock from the
// faster.
func TestTwoTakersOfOneLock(t *testing.T) {
	l := testLinker(t, "n1", time.Minute)
	dead := takeIt(t, l)
	seen := dead.is.head
	fast, slow := l.as("n2"), l.as("n3")
	if err := fast.takeAway(lockedKey, seen); err != nil {
		t.Fatal(err)
	}
	h := takeIt(t, fast)
	defer h.release()
	if err := slow.takeAway(lockedKey, seen); err != nil {
		t.Fatal(err)
	}
	if !h.owned() {
		t.Error("the slower one took the lock from the faster")
	}
	if dead.owned() {
		t.Error("the first holder still owns it")
	}
	if err := dead.release(); err != nil || !h.owned() {
		t.Errorf("the first holder gave away another's lock: %v", err)
	}
}

// A third takes the lock while the slower taker has the second's away: the
// second finds out.
func TestThirdTaker(t *testing.T) {
	l := testLinker(t, "n1", 100*time.Millisecond)
	second := takeIt(t, l)
	if err := os.Rename(l.path(lockedKey), l.aside(lockedKey)); err != nil { // the slower taker's first half
		t.Fatal(err)
	}
	third := takeIt(t, l.as("n3"))
	defer third.release()
	select {
	case <-second.lost:
	case <-time.After(10 * time.Second):
		t.Error("the second does not notice")
	}
	if err := second.release(); err != nil || !third.owned() {
		t.Errorf("%v, owned by the third: %v", err, third.owned())
	}
}

// A lock that is missing for a moment only, because a taker puts it back, is
// not lost; one that is missing twice in a row is.
func TestPutBackInTime(t *testing.T) {
	l := testLinker(t, "n1", 100*time.Millisecond)
	h := takeIt(t, l)
	close(h.stop) // the test looks itself
	<-h.stopped
	aside := l.aside(lockedKey)
	for _, missing := range []int{1, 0, 1, 2} {
		if missing == 0 {
			if err := errors.Join(linkOnce(aside, l.path(lockedKey)), os.Remove(aside)); err != nil {
				t.Fatal(err)
			}
		} else {
			_ = os.Rename(l.path(lockedKey), aside)
		}
		if h.renew(); h.missing != missing {
			t.Errorf("missing %d times, want %d", h.missing, missing)
		}
	}
	again := takeIt(t, l)
	defer again.release()
	if err := os.Rename(l.path(lockedKey), aside); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		select {
		case <-again.lost:
			if again.missing != 2 {
				t.Errorf("lost after %d looks", again.missing)
			}
			return
		case <-time.After(10 * time.Second):
		}
	}
	t.Error("not lost")
}

func TestSilenceAndSigns(t *testing.T) {
	l := testLinker(t, "n1", time.Second)
	h := takeIt(t, l)
	other := l.as("n2")
	// Renewed, it stays another's for longer than the limit.
	ctx, cancel := context.WithTimeout(testContext(t), 3*l.stale)
	defer cancel()
	if err := other.wait(ctx, lockedKey, true, func(lockFile) {}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("taken from a living holder: %v", err)
	}
	close(h.stop) // it says no more
	<-h.stopped
	began := time.Now()
	if err := other.wait(testContext(t), lockedKey, true, func(lockFile) {}); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took < l.stale {
		t.Errorf("taken after a silence of %s", took)
	}
	if _, err := os.Stat(l.path(lockedKey)); !errors.Is(err, fs.ErrNotExist) {
		t.Error("the lock is still there")
	}
}

// A watcher that was stopped itself has seen no silence.
func TestWatchWantsLooks(t *testing.T) {
	w := watch{limit: time.Nanosecond}
	f := newLockFile(Holder{Host: "n1"})
	for look, want := range []bool{false, false, false, true} {
		if got := w.stale(f); got != want {
			t.Errorf("look %d: stale %v", look, got)
		}
	}
	f.tail = newTail(1, "")
	if w.stale(f) {
		t.Error("stale after a sign")
	}
}

func TestWhoIsGone(t *testing.T) {
	self, err := thisProcess("n1")
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name   string
		change func(*Holder)
		want   bool
	}{
		{"itself", func(*Holder) {}, false},
		{"another node", func(h *Holder) { h.Host, h.PID = "n2", 1<<22+1 }, false},
		{"another node's boot", func(h *Holder) { h.Host, h.Boot = "n2", "x" }, false},
		{"before the boot", func(h *Holder) { h.Boot = "x" }, true},
		{"no such process", func(h *Holder) { h.PID = 1<<22 + 1 }, true},
		{"the number is another's by now", func(h *Holder) { h.Start++ }, true},
		{"numbers of another namespace", func(h *Holder) { h.Space, h.PID = "pid:[1]", 1<<22+1 }, false},
		{"nonsense", func(h *Holder) { *h = Holder{} }, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h := self
			tc.change(&h)
			if got := h.gone(self); got != tc.want {
				t.Errorf("gone: %v", got)
			}
		})
	}
}

// What a holder says must survive what a file system and a registry do to it.
func TestLockFile(t *testing.T) {
	l := testLinker(t, "n1", time.Minute)
	for name, text := range map[string]string{"empty": "", "short": "{", "nonsense": strings.Repeat("x", 3*lockHalf)} {
		t.Run(name, func(t *testing.T) {
			if err := os.WriteFile(l.path(lockedKey), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			f, err := readLockFile(l.path(lockedKey))
			if err != nil || len(f.head) != lockHalf || f.holder.Host != "" {
				t.Fatalf("%+v, %v", f, err)
			}
			if err := l.takeAway(lockedKey, f.head); err != nil {
				t.Error(err)
			}
			if _, err := os.Stat(l.path(lockedKey)); err == nil {
				t.Error("it cannot be taken over")
			}
		})
	}
	for name, progress := range map[string]string{
		"plain": "layer 3 of 7", "long": strings.Repeat("x", 10000), "escaped": strings.Repeat("\x01", 500), "wide": strings.Repeat("ü", 500),
	} {
		if tail := newTail(1<<63, progress); len(tail) != lockHalf || !strings.Contains(tail, fmt.Sprint(uint64(1<<63))) {
			t.Errorf("%s: %d bytes: %q", name, len(tail), tail)
		}
	}
}

func TestHostNames(t *testing.T) {
	for host, ok := range map[string]bool{
		"n1": true, "n1.example.org": true, "": false, "localhost": false, "localhost.localdomain": false,
		"../x": false, ".x": false, "a/b": false, "a b": false, strings.Repeat("x", 65): false,
	} {
		if err := checkHost(host); (err == nil) != ok {
			t.Errorf("%q: %v", host, err)
		}
	}
}
