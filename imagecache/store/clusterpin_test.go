package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// pinned is the digest of an image that nobody needs.
func pinned(n int) Digest {
	d, err := ParseDigest(fmt.Sprintf("sha256:%064x", n))
	if err != nil {
		panic(err)
	}
	return d
}

// Of many nodes that pin the same job at once to different digests, one wins,
// and all hear which.
func TestClusterPin(t *testing.T) {
	c := newCrowd(t)
	const count = 20
	answers := make([]Digest, count)
	var wg sync.WaitGroup
	for i := range count {
		n := c.node(func(o *ClusterOptions) { o.Host = fmt.Sprint("n", i) })
		wg.Go(func() {
			d, err := n.Pin(testContext(t), "7.abc", pinned(1+i))
			if err != nil {
				t.Error(err)
			}
			answers[i] = d
		})
	}
	wg.Wait()
	for i, d := range answers {
		if d != answers[0] || d.IsZero() {
			t.Errorf("node %d got %s, node 0 %s", i, d, answers[0])
		}
	}
	if d, err := c.node(nil).Pin(testContext(t), "8.abc", pinned(99)); err != nil || d != pinned(99) {
		t.Errorf("another job got %s, %v", d, err)
	}
	if left, _ := filepath.Glob(filepath.Join(c.root, "pins", ".*")); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}

func TestClusterPinOfAReader(t *testing.T) {
	c := newCrowd(t)
	writer, reader := c.node(nil), c.node(func(o *ClusterOptions) { o.Writer = false })
	if d, err := reader.Pin(testContext(t), "7.abc", pinned(1)); !errors.Is(err, ErrNotFound) {
		t.Errorf("a reader pinned %s, %v", d, err)
	}
	if _, err := writer.Pin(testContext(t), "7.abc", pinned(2)); err != nil {
		t.Fatal(err)
	}
	if d, err := reader.Pin(testContext(t), "7.abc", pinned(1)); err != nil || d != pinned(2) {
		t.Errorf("a reader got %s, %v", d, err)
	}
}

// What others than root could have written is no pin.
func TestClusterPinIsRoots(t *testing.T) {
	for name, spoil := range map[string]func(path string) error{
		"writable": func(path string) error { return os.Chmod(path, 0o666) },
		"link":     func(path string) error { return errors.Join(os.Rename(path, path+".x"), os.Symlink(path+".x", path)) },
		"nonsense": func(path string) error { return os.WriteFile(path, []byte("sha256:0\n"), 0o644) },
		"pipe":     func(path string) error { return errors.Join(os.Remove(path), unix.Mkfifo(path, 0o644)) },
	} {
		t.Run(name, func(t *testing.T) {
			c := newCrowd(t)
			n := c.node(nil)
			if _, err := n.Pin(testContext(t), "7.abc", pinned(1)); err != nil {
				t.Fatal(err)
			}
			if err := spoil(filepath.Join(c.root, "pins", "7.abc")); err != nil {
				t.Fatal(err)
			}
			if d, err := n.Pinned(testContext(t), "7.abc"); !errors.Is(err, ErrUnusable) {
				t.Errorf("believed %s, %v", d, err)
			}
		})
	}
}

// Pins go when their job is long over.
func TestClusterPinsEnd(t *testing.T) {
	c := newCrowd(t)
	n := c.node(nil)
	for _, job := range []string{"7.abc", "8.abc"} {
		if _, err := n.Pin(testContext(t), job, pinned(1)); err != nil {
			t.Fatal(err)
		}
	}
	old := time.Now().Add(-pinLife - time.Minute)
	if err := os.Chtimes(filepath.Join(c.root, "pins", "7.abc"), old, old); err != nil {
		t.Fatal(err)
	}
	n.Expunge(testContext(t))
	if _, err := n.Pinned(testContext(t), "7.abc"); !errors.Is(err, ErrNotFound) {
		t.Errorf("an old pin is still there: %v", err)
	}
	if _, err := n.Pinned(testContext(t), "8.abc"); err != nil {
		t.Errorf("a young pin is gone: %v", err)
	}
}
