package store

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Of many processes on many nodes one fills, and all have the image.
func TestClusterIsFilledOnce(t *testing.T) {
	for _, noFlock := range []bool{false, true} {
		t.Run(fmt.Sprintf("noflock=%v", noFlock), func(t *testing.T) {
			c := newCrowd(t)
			var all []*exec.Cmd
			for i := range 50 {
				all = append(all, c.start(part{Host: fmt.Sprintf("n%d", i%10), Work: 700 * time.Millisecond, Stale: 5 * time.Second, NoFlock: noFlock}))
			}
			for _, cmd := range all {
				if out := c.end(cmd); !strings.Contains(out, "has it") {
					t.Error(out)
				}
			}
			if fills := c.fills(); len(fills) != 1 {
				t.Errorf("filled by %v", fills)
			}
			c.checkWhole()
		})
	}
}

// kill -9 of a holder in every phase: whoever waits, or comes later, has the
// image, and nothing of the dead is left. A process of the same node sees the
// death at once, one of another after Stale.
func TestClusterHolderKilled(t *testing.T) {
	steps := []string{
		"locked", "made work folder", "wrote", "made folder",
		"took " + RootfsName, "took " + ConfigName, "took " + RecordName, "renamed", "published",
	}
	for _, host := range []string{"n1", "n2"} {
		for _, step := range steps {
			t.Run(step+", then "+host, func(t *testing.T) {
				t.Parallel()
				c := newCrowd(t)
				victim := c.start(part{Host: "n1", KillAt: step})
				if out := c.end(victim); victim.ProcessState.Exited() {
					t.Fatalf("was not killed: %s", out)
				}
				began := time.Now()
				if out := c.end(c.start(part{Host: host, Stale: 900 * time.Millisecond})); !strings.Contains(out, "has it") {
					t.Fatal(out)
				}
				there := step == "renamed" || step == "published"
				if took := time.Since(began); host == "n2" && !there && took < 900*time.Millisecond {
					t.Errorf("taken over after %s", took)
				}
				want := 2
				if there {
					want = 1
				}
				if got := len(c.fills()); got != want {
					t.Errorf("%d fills, want %d", got, want)
				}
				if there {
					c.sweepAfter("n1") // nobody needed the lock
				}
				c.checkWhole()
			})
		}
	}
}

// sweepAfter does what the next pull of any image does for the locks of others.
func (c *crowd) sweepAfter(host string) {
	c.t.Helper()
	s := c.node(func(o *ClusterOptions) { o.Host = host })
	if err := s.Tidy(testContext(c.t)); err != nil {
		c.t.Error(err)
	}
}

// 20 processes of 12 nodes die as soon as they hold the lock, 40 others want
// the image as well.
func TestClusterKilledOneAfterTheOther(t *testing.T) {
	c := newCrowd(t)
	var all []*exec.Cmd
	for i := range 60 {
		p := part{Host: fmt.Sprintf("n%d", i%12), Work: 5 * time.Millisecond}
		if i < 20 {
			p.KillAt = []string{"locked", "wrote", "took " + RootfsName}[i%3]
		}
		if i == 20 {
			await(t, "some die", func() bool { return len(c.fills()) >= 3 })
		}
		all = append(all, c.start(p))
	}
	killed := 0
	for _, cmd := range all {
		out := c.end(cmd)
		if !cmd.ProcessState.Exited() {
			killed++
		} else if !strings.Contains(out, "has it") {
			t.Error(out)
		}
	}
	t.Logf("%d killed, %d fills", killed, len(c.fills()))
	if killed == 0 {
		t.Error("nobody was killed: this shows nothing")
	}
	c.sweepAfter("n1")
	c.checkWhole()
}

// A holder that stands still loses its lock; when it goes on it finds that
// out, harms nothing, and has the image as well.
func TestClusterSlowHolder(t *testing.T) {
	for _, step := range []string{"locked", "made work folder", "wrote", "made folder", "took " + RootfsName, "took " + RecordName, "published"} {
		t.Run(step, func(t *testing.T) {
			t.Parallel()
			c := newCrowd(t)
			slow := c.start(part{Host: "n1", StopAt: step})
			stopped(t, slow.Process.Pid)
			if out := c.end(c.start(part{Host: "n2"})); !strings.Contains(out, "has it") {
				t.Error(out)
			}
			if err := unix.Kill(slow.Process.Pid, unix.SIGCONT); err != nil {
				t.Fatal(err)
			}
			if out := c.end(slow); !strings.Contains(out, "has it") {
				t.Error(out)
			}
			c.sweepAfter("n1")
			c.checkWhole()
		})
	}
}

// stopped waits until a process has stopped.
func stopped(t *testing.T, pid int) {
	t.Helper()
	var info unix.Siginfo
	for {
		err := unix.Waitid(unix.P_PID, pid, &info, unix.WSTOPPED|unix.WNOWAIT, nil)
		if err == nil {
			return
		}
		if !errors.Is(err, unix.EINTR) {
			t.Fatal(err)
		}
	}
}

// What one node could not pull, the others need not try one after the other.
func TestClusterFailureIsShared(t *testing.T) {
	for _, tc := range []struct {
		fail, says string
		fills      int
	}{{"user", "no such image", 1}, {"site", "registry down", 2}, {"unusable", ErrUnusable.Error(), 2}} {
		t.Run(tc.fail, func(t *testing.T) {
			t.Parallel()
			c := newCrowd(t)
			var all []*exec.Cmd
			for i := range 15 {
				all = append(all, c.start(part{Host: fmt.Sprintf("n%d", i), Work: 800 * time.Millisecond, Fail: tc.fail, Stale: 3 * time.Second}))
			}
			for _, cmd := range all {
				if out := c.end(cmd); !strings.Contains(out, tc.says) {
					t.Errorf("want %q: %s", tc.says, out)
				}
			}
			if got := len(c.fills()); got > tc.fills {
				t.Errorf("%d tries, want at most %d", got, tc.fills)
			}
			// One that comes later tries for itself.
			if out := c.end(c.start(part{Host: "later"})); !strings.Contains(out, "has it") {
				t.Error(out)
			}
		})
	}
}

// That somebody may not have an image is nobody else's answer.
func TestClusterPersonalFailure(t *testing.T) {
	c := newCrowd(t)
	refused := c.start(part{Host: "n1", Work: 800 * time.Millisecond, Fail: "personal", Stale: 3 * time.Second})
	await(t, "the pull begins", func() bool { return len(c.fills()) == 1 })
	waits := c.start(part{Host: "n2", Stale: 3 * time.Second})
	if out := c.end(refused); !strings.Contains(out, "you may not") {
		t.Error(out)
	}
	if out := c.end(waits); !strings.Contains(out, "has it") || strings.Contains(out, "you may not") {
		t.Error(out)
	}
}

// A node that may not write waits for a pull that is under way, and does not
// pull itself.
func TestClusterReader(t *testing.T) {
	c := newCrowd(t)
	if out := c.end(c.start(part{Host: "r1", Reader: true})); !strings.Contains(out, ErrNotFound.Error()) {
		t.Error(out)
	}
	if left, _ := os.ReadDir(c.root); len(left) > 0 {
		t.Errorf("a reader wrote %v", left)
	}
	writer := c.start(part{Host: "n1", Work: time.Second, Stale: 5 * time.Second})
	await(t, "the pull begins", func() bool { return len(c.fills()) == 1 })
	if out := c.end(c.start(part{Host: "r1", Reader: true, Stale: 5 * time.Second})); !strings.Contains(out, "has it") {
		t.Error(out)
	}
	c.end(writer)
	dead := newCrowd(t)
	dead.end(dead.start(part{Host: "n1", KillAt: "locked"}))
	if out := dead.end(dead.start(part{Host: "r1", Reader: true})); !strings.Contains(out, ErrNotFound.Error()) {
		t.Errorf("after the writer died: %s", out)
	}
}

func await(t *testing.T, what string, happened func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(20 * time.Second)
	for !happened() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// Waiters hear who is at it and how far.
func TestClusterProgress(t *testing.T) {
	c := newCrowd(t)
	writer := c.start(part{Host: "n1", Work: 2 * time.Second, Stale: 5 * time.Second})
	await(t, "the pull begins", func() bool { return len(c.fills()) == 1 })
	var mu sync.Mutex
	heard := map[string]bool{}
	s := c.node(func(o *ClusterOptions) { o.Stale = 5 * time.Second })
	src, err := s.Ensure(testContext(t), digest('a'), func(host, line string) {
		mu.Lock()
		defer mu.Unlock()
		heard[host+": "+line] = true
	}, func(context.Context, *Lock) error { return errors.New("filled twice") })
	if err != nil {
		t.Fatal(err)
	}
	src.Close()
	if !heard["n1: layer 1 of 1"] {
		t.Errorf("heard %v", heard)
	}
	c.end(writer)
}

// The time of another's silence is measured by the waiter's own clock.
func TestClusterCancelledWait(t *testing.T) {
	c := newCrowd(t)
	s := c.node(nil)
	held, err := s.links.try(Key(digest('a')))
	if err != nil || held == nil {
		t.Fatal(held, err)
	}
	defer held.release()
	ctx, cancel := context.WithCancel(testContext(t))
	_, err = s.Ensure(ctx, digest('a'), func(string, string) { cancel() }, nil)
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// A work folder loses its name before its first file: what is half removed can
// not be published by a holder that is slow.
func TestClusterSweepsByRename(t *testing.T) {
	c := newCrowd(t)
	s := c.node(nil)
	work := filepath.Join(s.newDir(), Key(digest('a'))+".slow")
	if err := errors.Join(os.Mkdir(work, 0o700), os.WriteFile(filepath.Join(work, RootfsName), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	watch, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(watch)
	if _, err := unix.InotifyAddWatch(watch, work, unix.IN_MOVE_SELF|unix.IN_DELETE); err != nil {
		t.Fatal(err)
	}
	s.sweepLinked(Key(digest('a')))
	buf := make([]byte, 4096)
	if n, err := unix.Read(watch, buf); err != nil || n < unix.SizeofInotifyEvent {
		t.Fatalf("no event: %d, %v", n, err)
	}
	if mask := binary.NativeEndian.Uint32(buf[4:]); mask&unix.IN_MOVE_SELF == 0 {
		t.Errorf("the first event is %#x: its files went before its name", mask)
	}
	if _, err := os.Stat(work); err == nil {
		t.Error("it is still there")
	}
}

// What keeps a node's store within its limits must not touch what all share.
func TestClusterIsNoNodesSpace(t *testing.T) {
	c := newCrowd(t)
	s := c.publish(digest('a'))
	sp := &Space{Store: s.Store, Limits: Limits{Quota: 1}}
	lock, _, err := s.lock(testContext(t), digest('b'), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Release()
	if err := sp.Reserve(testContext(t), lock, 100); err != nil {
		t.Errorf("reserve: %v", err)
	}
	if n, err := sp.Free(testContext(t), lock, 100); n != 0 || err != nil {
		t.Errorf("free: %d, %v", n, err)
	}
	if removed, err := sp.Trim(testContext(t)); len(removed) != 0 || err != nil {
		t.Errorf("trim: %v, %v", removed, err)
	}
	if _, err := s.Store.Lock(testContext(t), digest('b'), nil); err == nil {
		t.Error("it was locked by flock")
	}
	if !c.there() {
		t.Error("the image is gone")
	}
}
