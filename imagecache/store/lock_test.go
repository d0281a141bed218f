package store

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/berth-hpc/berth/fault"
)

func TestLockWaits(t *testing.T) {
	s := open(t)
	first, err := s.Lock(testContext(t), digest('a'), nil)
	if err != nil {
		t.Fatal(err)
	}
	if other, err := s.Lock(testContext(t), digest('b'), nil); err != nil {
		t.Errorf("another image's lock: %v", err)
	} else {
		defer other.Release()
	}
	ctx, cancel := context.WithCancel(testContext(t))
	if _, err := s.Lock(ctx, digest('a'), cancel); !errors.Is(err, context.Canceled) || fault.Of(err) != fault.Site {
		t.Errorf("waiting is not cancelled: %v", err)
	}
	waiting, got := make(chan struct{}), make(chan error)
	go func() {
		l, err := s.Lock(testContext(t), digest('a'), func() { close(waiting) })
		if err == nil {
			err = l.Release()
		}
		got <- err
	}()
	<-waiting
	if err := first.Release(); err != nil {
		t.Error(err)
	}
	if err := <-got; err != nil {
		t.Error(err)
	}
}

// TestSweep removes the leftovers of dead processes and leaves those of
// living ones alone.
func TestSweep(t *testing.T) {
	s := open(t)
	living, err := s.Lock(testContext(t), digest('a'), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer living.Release()
	keep, err := living.TempDir(os.Geteuid(), os.Getegid())
	if err != nil {
		t.Fatal(err)
	}
	dead := []string{
		filepath.Join(s.tmpDir(), Key(digest('b'))+".123"), filepath.Join(s.tmpDir(), Key(digest('c'))+".456"),
		filepath.Join(s.newDir(), Key(digest('c'))+".789"),
	}
	for _, dir := range dead {
		if err := os.MkdirAll(filepath.Join(dir, "sub"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	l, err := s.Lock(testContext(t), digest('c'), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Release()
	for _, dir := range dead {
		if _, err := os.Stat(dir); err == nil {
			t.Errorf("left: %s", dir)
		}
	}
	if _, err := os.Stat(keep); err != nil {
		t.Errorf("swept although its lock is held: %v", err)
	}
}
