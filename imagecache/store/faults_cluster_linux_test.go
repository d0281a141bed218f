package store

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berth-hpc/berth/testdata/faultfs"
)

// clusterAfter is the cluster's store as a node sees it after so many boots:
// what it had locked before, it does not hold any more.
func clusterAfter(dir, boots string) (*Cluster, error) {
	c, err := OpenCluster(context.Background(), dir, ClusterOptions{
		Host: "n1", Writer: true, Stale: time.Hour, Lease: time.Hour, Patience: 10 * time.Second,
	})
	if err == nil {
		c.links.self.Boot += boots
	}
	return c, err
}

func clusterPull(dir, boots string, d Digest) error {
	c, err := clusterAfter(dir, boots)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	src, err := c.Ensure(ctx, d, func(string, string) {}, func(_ context.Context, l *Lock) error {
		return unusable("convert", d.String(), publishLocked(c.Store, l, d, func(string) {}))
	})
	if err != nil {
		return err
	}
	return src.Close()
}

// clusterHas says whether the cluster's store shows d, and wants it whole then.
func clusterHas(t testing.TB, dir string, d Digest) bool {
	t.Helper()
	c, err := clusterAfter(dir, " later")
	if err != nil {
		t.Fatal(err)
	}
	src, err := c.Open(context.Background(), d)
	if errors.Is(err, ErrNotFound) {
		return false
	}
	if err != nil {
		t.Errorf("visible, but: %v", err)
		return true
	}
	defer src.Close()
	if err := src.Verify(context.Background()); err != nil {
		t.Errorf("visible, but: %v", err)
	}
	return true
}

// checkTidy wants nothing left but what is published, and folders that other
// nodes may enter.
func checkTidy(t testing.TB, dir string) {
	t.Helper()
	c, err := clusterAfter(dir, " later")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Tidy(context.Background()); err != nil {
		t.Error(err)
	}
	for _, path := range []string{c.tmpDir(), c.newDir(), c.locksDir(), c.removedDir()} {
		if entries, err := os.ReadDir(path); err != nil || len(entries) > 0 {
			t.Errorf("left in %s: %v %v", path, entries, err)
		}
	}
	for path, mode := range map[string]os.FileMode{c.imagesDir(): 0o755, c.locksDir(): 0o755, c.leasesDir(): 0o755, c.tmpDir(): 0o711} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v", path, info, err)
		}
	}
}

// TestFaultsOfCluster interrupts a pull into a cluster's store, from its
// beginning, on a server or node that dies.
func TestFaultsOfCluster(t *testing.T) {
	d := digest('a')
	old := unix.Umask(0o077) // the folders are for all nodes nevertheless
	t.Cleanup(func() { unix.Umask(old) })
	faultfs.Trial{
		Seeds: seeds,
		Do:    func(dir string) error { return clusterPull(dir, "", d) },
		Check: func(t testing.TB, dir string, err error) {
			checkBlame(t, err)
			if has := clusterHas(t, dir, d); err == nil && !has {
				t.Error("pulled, but not there")
			}
			if err := clusterPull(dir, " later", d); err != nil {
				t.Fatalf("the next: %v", err)
			}
			if !clusterHas(t, dir, d) {
				t.Error("afterwards it is not there")
			}
			checkTidy(t, dir)
		},
	}.Run(t)
}

// TestFaultsOfClusterRemove interrupts a removal.
func TestFaultsOfClusterRemove(t *testing.T) {
	d, other := digest('a'), digest('b')
	remove := func(dir string) error {
		c, err := clusterAfter(dir, " later")
		if err != nil {
			return err
		}
		return c.Remove(c.image('a'))
	}
	faultfs.Trial{
		Seeds: seeds,
		Prepare: func(t testing.TB, dir string) {
			if err := errors.Join(clusterPull(dir, "", d), clusterPull(dir, "", other)); err != nil {
				t.Fatal(err)
			}
		},
		Do: remove,
		Check: func(t testing.TB, dir string, err error) {
			checkBlame(t, err)
			if has := clusterHas(t, dir, d); err == nil && has {
				t.Error("removed, but there")
			}
			if err := remove(dir); err != nil {
				t.Errorf("the next: %v", err)
			}
			if clusterHas(t, dir, d) || !clusterHas(t, dir, other) {
				t.Error("afterwards it is there, or another is not")
			}
			checkTidy(t, dir)
		},
	}.Run(t)
}
