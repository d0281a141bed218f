package store

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/berth-hpc/berth/fault"
)

// TestClusterTrust lets others than root have changed what lies in a cluster's
// store, or the disk.
func TestClusterTrust(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: gives files to others")
	}
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte(contents), 0o600); err != nil {
		t.Fatal(err)
	}
	replace := func(path string, put func(path string) error) error {
		return errors.Join(os.RemoveAll(path), put(path))
	}
	for _, tc := range []struct {
		name   string
		tamper func(root, folder string) error
		want   error
	}{
		{"nothing", func(_, _ string) error { return nil }, nil},
		{"a link for the file", func(_, f string) error {
			return replace(filepath.Join(f, RootfsName), func(p string) error { return os.Symlink(secret, p) })
		}, ErrUnusable},
		{"a link for the record", func(_, f string) error {
			return replace(filepath.Join(f, RecordName), func(p string) error { return os.Symlink(secret, p) })
		}, ErrUnusable},
		{"a link for the config", func(_, f string) error {
			return replace(filepath.Join(f, ConfigName), func(p string) error { return os.Symlink(secret, p) })
		}, ErrUnusable},
		{"a link for the folder", func(_, f string) error {
			return errors.Join(os.Rename(f, f+".x"), os.Symlink(f+".x", f))
		}, ErrUnusable},
		{"a link for the folder of images", func(root, f string) error {
			images := filepath.Join(root, "images")
			return errors.Join(os.Rename(images, images+".x"), os.Symlink(images+".x", images))
		}, ErrUnusable},
		{"a second name", func(root, f string) error {
			return os.Link(filepath.Join(f, RootfsName), filepath.Join(root, "again"))
		}, ErrUnusable},
		{"another owner", func(_, f string) error { return os.Chown(filepath.Join(f, RootfsName), accountID, 0) }, ErrUnusable},
		{"another owner of the folder", func(_, f string) error { return os.Chown(f, accountID, 0) }, ErrUnusable},
		{"another owner of the record", func(_, f string) error { return os.Chown(filepath.Join(f, RecordName), accountID, 0) }, ErrUnusable},
		{"writable by a group", func(_, f string) error { return os.Chmod(filepath.Join(f, RootfsName), 0o464) }, ErrUnusable},
		{"a folder writable by all", func(_, f string) error { return os.Chmod(f, 0o777) }, ErrUnusable},
		{"images writable by all", func(root, _ string) error { return os.Chmod(filepath.Join(root, "images"), 0o777) }, ErrUnusable},
		{"a fifo", func(_, f string) error {
			return replace(filepath.Join(f, RootfsName), func(p string) error { return unix.Mkfifo(p, 0o444) })
		}, ErrUnusable},
		{"a folder for the file", func(_, f string) error {
			return replace(filepath.Join(f, RootfsName), func(p string) error { return os.Mkdir(p, 0o755) })
		}, ErrUnusable},
		{"no file", func(_, f string) error { return os.Remove(filepath.Join(f, RootfsName)) }, ErrDamaged},
		{"no record", func(_, f string) error { return os.Remove(filepath.Join(f, RecordName)) }, ErrDamaged},
		{"an empty record", func(_, f string) error { return os.Truncate(filepath.Join(f, RecordName), 0) }, ErrDamaged},
		{"a huge record", func(_, f string) error { return os.Truncate(filepath.Join(f, RecordName), maxJSON+1) }, ErrDamaged},
		{"cut short", func(_, f string) error { return os.Truncate(filepath.Join(f, RootfsName), 3) }, ErrDamaged},
		{"not there", func(_, f string) error { return os.RemoveAll(f) }, ErrNotFound},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := newCrowd(t)
			s := c.publish(digest('a'))
			if err := tc.tamper(c.root, filepath.Join(s.imagesDir(), Key(digest('a')))); err != nil {
				t.Fatal(err)
			}
			src, err := s.Open(testContext(t), digest('a'))
			if !errors.Is(err, tc.want) || err == nil != (tc.want == nil) {
				t.Errorf("%v", err)
			}
			if err == nil {
				src.Close()
			}
		})
	}
	for name, tamper := range map[string]func(root string) error{
		"missing":         os.RemoveAll,
		"writable by all": func(root string) error { return os.Chmod(root, 0o777) },
		"another owner":   func(root string) error { return os.Chown(root, accountID, 0) },
	} {
		t.Run("root "+name, func(t *testing.T) {
			c := newCrowd(t)
			s := c.publish(digest('a'))
			if err := tamper(c.root); err != nil {
				t.Fatal(err)
			}
			if _, err := OpenCluster(testContext(t), c.root, s.opts); !errors.Is(err, ErrUnusable) || fault.Of(err) != fault.Site {
				t.Errorf("opened: %v", err)
			}
			if name == "missing" {
				if _, err := os.Stat(c.root); !errors.Is(err, fs.ErrNotExist) {
					t.Error("it was made")
				}
			}
		})
	}
}

// A copy is what the record says, or none.
func TestClusterCopy(t *testing.T) {
	c := newCrowd(t)
	s := c.publish(digest('a'))
	node := open(t)
	var last int64
	im, err := copyInto(testContext(t), s, node, func(done, _ int64) { last = done })
	if err != nil {
		t.Fatal(err)
	}
	checkImage(t, im)
	checkEmpty(t, node)
	if err := im.Verify(testContext(t)); err != nil || last != int64(len(contents)) {
		t.Errorf("%v, %d bytes said", err, last)
	}
	rootfs := filepath.Join(s.imagesDir(), Key(digest('a')), RootfsName)
	if err := os.WriteFile(rootfs, []byte(strings.ToUpper(contents)), 0o444); err != nil {
		t.Fatal(err)
	}
	node = open(t)
	if _, err := copyInto(testContext(t), s, node, func(_, _ int64) {}); !errors.Is(err, ErrDamaged) {
		t.Errorf("other bytes of the same length: %v", err)
	}
	if _, err := node.Get(digest('a')); !errors.Is(err, ErrNotFound) {
		t.Error("they were published")
	}
	checkEmpty(t, node)
}

// copyInto does what a node does with the image of a cluster's store.
func copyInto(ctx context.Context, s *Cluster, node *Store, progress func(done, total int64)) (Image, error) {
	src, err := s.Open(ctx, digest('a'))
	if err != nil {
		return Image{}, err
	}
	defer src.Close()
	l, err := node.Lock(ctx, digest('a'), nil)
	if err != nil {
		return Image{}, err
	}
	defer l.Release()
	dir, err := l.TempDir(os.Geteuid(), os.Getegid())
	if err != nil {
		return Image{}, err
	}
	if err := src.CopyTo(ctx, dir, progress); err != nil {
		return Image{}, err
	}
	return publishDir(node, dir, digest('a'), os.Geteuid())
}

// A damaged image makes room for a good one; a good one stays.
func TestClusterSetAside(t *testing.T) {
	c := newCrowd(t)
	s := c.publish(digest('a'))
	if err := s.SetAside(testContext(t), digest('a')); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Open(testContext(t), digest('a')); err != nil {
		t.Errorf("a good image went: %v", err)
	}
	rootfs := filepath.Join(s.imagesDir(), Key(digest('a')), RootfsName)
	if err := os.WriteFile(rootfs, []byte(strings.ToUpper(contents)), 0o444); err != nil {
		t.Fatal(err)
	}
	reader := c.node(func(o *ClusterOptions) { o.Writer = false })
	if err := reader.SetAside(testContext(t), digest('a')); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Open(testContext(t), digest('a')); err != nil {
		t.Errorf("a node that may not write removed it: %v", err)
	}
	if err := errors.Join(s.Lease(testContext(t), digest('a')), s.SetAside(testContext(t), digest('a'))); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Open(testContext(t), digest('a')); !errors.Is(err, ErrNotFound) {
		t.Errorf("it is still there: %v", err)
	}
	s.Expunge(testContext(t))
	if _, err := s.Open(testContext(t), digest('a')); !errors.Is(err, ErrNotFound) {
		t.Errorf("a lease brought it back: %v", err)
	}
	c.publish(digest('a'))
	c.checkWhole()
}
