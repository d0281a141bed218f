package store

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func (c *Cluster) image(name byte) Image {
	return Image{dir: filepath.Join(c.imagesDir(), Key(digest(name))), digest: digest(name)}
}

func isInUse(err error) bool {
	var used *InUseError
	return errors.As(err, &used)
}

func (c *crowd) there() bool {
	c.t.Helper()
	src, err := c.node(nil).Open(testContext(c.t), digest('a'))
	if err == nil {
		src.Close()
	}
	return err == nil
}

func (c *crowd) removed() int {
	c.t.Helper()
	entries, err := os.ReadDir(filepath.Join(c.root, "images", ".removed"))
	if err != nil {
		c.t.Fatal(err)
	}
	return len(entries)
}

// A leased image is not removed; one whose leases ended, are old, or are from
// before a boot, is.
func TestClusterRemove(t *testing.T) {
	ctx := testContext(t)
	for _, tc := range []struct {
		name   string
		leases func(c *crowd, s *Cluster) error
		used   bool
	}{
		{"no lease", func(*crowd, *Cluster) error { return nil }, false},
		{"a lease", func(_ *crowd, s *Cluster) error { return s.Lease(ctx, digest('a')) }, true},
		{"an ended lease", func(_ *crowd, s *Cluster) error {
			return errors.Join(s.Lease(ctx, digest('a')), s.Unlease(ctx, digest('a')), s.Unlease(ctx, digest('a')))
		}, false},
		{"another image's lease", func(_ *crowd, s *Cluster) error { return s.Lease(ctx, digest('b')) }, false},
		{"an old lease", func(_ *crowd, s *Cluster) error {
			old := time.Now().Add(-2 * time.Hour)
			return errors.Join(s.Lease(ctx, digest('a')), os.Chtimes(s.leasePath(digest('a')), old, old))
		}, false},
		{"an old lease that was renewed", func(_ *crowd, s *Cluster) error {
			old := time.Now().Add(-2 * time.Hour)
			return errors.Join(s.Lease(ctx, digest('a')), os.Chtimes(s.leasePath(digest('a')), old, old), s.Lease(ctx, digest('a')))
		}, true},
		{"a lease that its node counts longer", func(c *crowd, s *Cluster) error {
			old := time.Now().Add(-2 * time.Hour)
			long := c.node(func(o *ClusterOptions) { o.Lease = 3 * time.Hour })
			return errors.Join(long.Lease(ctx, digest('a')), os.Chtimes(s.leasePath(digest('a')), old, old))
		}, true},
		{"a lease that was cut short", func(_ *crowd, s *Cluster) error {
			return errors.Join(s.Lease(ctx, digest('a')), os.Truncate(s.leasePath(digest('a')), 0))
		}, true},
		{"a lease from before the boot, swept", func(_ *crowd, s *Cluster) error {
			dir := filepath.Dir(s.leasePath(digest('a')))
			return errors.Join(s.Lease(ctx, digest('a')), os.Rename(s.leasePath(digest('a')), filepath.Join(dir, "here.oldboot")), s.EndOldLeases(ctx))
		}, false},
		{"another node's lease is not swept", func(_ *crowd, s *Cluster) error {
			dir := filepath.Dir(s.leasePath(digest('a')))
			return errors.Join(s.Lease(ctx, digest('a')), os.Rename(s.leasePath(digest('a')), filepath.Join(dir, "n2.other")), s.EndOldLeases(ctx))
		}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := newCrowd(t)
			s := c.publish(digest('a'))
			if err := tc.leases(c, s); err != nil {
				t.Fatal(err)
			}
			err := s.Remove(s.image('a'))
			if tc.used != isInUse(err) || !tc.used && err != nil {
				t.Errorf("%v", err)
			}
			if c.there() != tc.used {
				t.Errorf("there: %v", c.there())
			}
		})
	}
}

// Of one node's leases the latest counts.
func TestClusterLeasesOfOneNode(t *testing.T) {
	c := newCrowd(t)
	s := c.publish(digest('a'))
	if err := s.Lease(testContext(t), digest('a')); err != nil {
		t.Fatal(err)
	}
	before := filepath.Join(filepath.Dir(s.leasePath(digest('a'))), "here.oldboot")
	if err := os.WriteFile(before, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-time.Minute)
	if err := os.Chtimes(before, old, old); err != nil {
		t.Fatal(err)
	}
	leases, err := s.leases(Key(digest('a')))
	if err != nil || len(leases) != 1 || leases[0].Boot != s.links.self.Boot {
		t.Errorf("%+v, %v", leases, err)
	}
}

// A removed image's file stays for a while, and comes back if a node had
// written its lease after all.
func TestClusterRemovalIsDelayed(t *testing.T) {
	ctx := testContext(t)
	c := newCrowd(t)
	c.publish(digest('a'))
	later := c.node(func(o *ClusterOptions) { o.RemoveDelay = time.Hour })
	src, err := later.Open(ctx, digest('a'))
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	if !src.InPlace(ctx, later) {
		t.Error("not in place before it is removed")
	}
	if err := later.Remove(later.image('a')); err != nil {
		t.Fatal(err)
	}
	if src.InPlace(ctx, later) || c.there() {
		t.Error("still in place")
	}
	later.Expunge(ctx)
	if c.removed() != 1 {
		t.Errorf("%d removed images, want 1 for an hour", c.removed())
	}
	if err := later.Lease(ctx, digest('a')); err != nil {
		t.Fatal(err)
	}
	c.node(nil).Expunge(ctx)
	if !c.there() || !src.InPlace(ctx, later) {
		t.Error("a leased image did not come back")
	}
	if err := errors.Join(later.Unlease(ctx, digest('a')), later.Remove(later.image('a'))); err != nil {
		t.Fatal(err)
	}
	c.node(nil).Expunge(ctx)
	if c.removed() != 0 || c.there() {
		t.Errorf("%d removed images, there: %v", c.removed(), c.there())
	}
}

// A node that writes its lease while a removal is on its way is seen.
func TestClusterLeaseDuringRemoval(t *testing.T) {
	c := newCrowd(t)
	s := c.publish(digest('a'))
	s.step = func(step string) {
		if step == "moved away" {
			if err := s.Lease(testContext(t), digest('a')); err != nil {
				t.Error(err)
			}
		}
	}
	if err := s.Remove(s.image('a')); !isInUse(err) {
		t.Errorf("removed: %v", err)
	}
	if !c.there() {
		t.Error("it did not come back")
	}
}

// An image that was replaced is another.
func TestClusterReplacedIsNotInPlace(t *testing.T) {
	ctx := testContext(t)
	c := newCrowd(t)
	s := c.publish(digest('a'))
	src, err := s.Open(ctx, digest('a'))
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	if err := s.Remove(s.image('a')); err != nil {
		t.Fatal(err)
	}
	c.publish(digest('a'))
	if src.InPlace(ctx, s) {
		t.Error("in place")
	}
}

// Who pulled an image has it, though it is removed before they let go of it.
func TestClusterRemovedAfterThePull(t *testing.T) {
	c := newCrowd(t)
	s := c.node(nil)
	s.step = func(step string) {
		if step == "gave the lock back" {
			if err := s.Remove(s.image('a')); err != nil {
				t.Error(err)
			}
		}
	}
	src, fills, err := ensure(t, s, func() {})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	if err := src.Verify(testContext(t)); err != nil || fills != 1 || c.there() {
		t.Errorf("pulled %d times, there: %v, %v", fills, c.there(), err)
	}
}

// Where each image is removed at once, a job goes on without the store.
func TestClusterRemovedAsSoonAsThere(t *testing.T) {
	s := newCrowd(t).node(nil)
	_, fills, err := ensure(t, s, func() {
		if err := s.Remove(s.image('a')); err != nil {
			t.Error(err)
		}
	})
	if !errors.Is(err, ErrUnusable) || fills != maxRemoved {
		t.Errorf("pulled %d times, %v", fills, err)
	}
}

// ensure calls published after each pull, in which the lock is held.
func ensure(t *testing.T, s *Cluster, published func()) (src *Source, fills int, err error) {
	t.Helper()
	src, err = s.Ensure(testContext(t), digest('a'), func(string, string) {}, func(_ context.Context, l *Lock) error {
		fills++
		defer published()
		return publishLocked(s.Store, l, digest('a'), func(string) {})
	})
	return src, fills, err
}
