package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// damagedMark ends the name of a removed image that must not come back.
const damagedMark = ".damaged"

// Remove takes im out of the cluster's store, unless a node has a lease on it:
// then the error is an InUseError. The image loses its name at once, so that
// nobody begins to use it; its file stays for RemoveDelay, for nodes that are
// copying it, and goes with a later Expunge. A writer's root calls it.
func (c *Cluster) Remove(im Image) error {
	key := im.Key()
	if err := c.inUse(key); err != nil {
		return err
	}
	gone, err := c.moveAway(key, "")
	if err != nil || gone == "" {
		return err
	}
	c.did("moved away")
	// A node that had not yet written its lease then sees that the name is
	// gone; one that had is seen here.
	if used := c.inUse(key); used != nil {
		return errors.Join(used, c.putBack(key, gone))
	}
	return nil
}

// SetAside takes d out of the cluster's store if it finds it damaged, so that
// it can be pulled again. It reads all of the file; nodes that have it mounted
// keep it. On a node that may not write it does nothing.
func (c *Cluster) SetAside(ctx context.Context, d Digest) error {
	if !c.opts.Writer {
		return nil
	}
	src, err := c.Open(ctx, d)
	if err == nil {
		defer src.Close()
		err = src.Verify(ctx)
	}
	if !errors.Is(err, ErrDamaged) {
		return err
	}
	_, err = c.moveAway(Key(d), damagedMark)
	return err
}

// inUse is an InUseError if a node has a lease on the image of key.
func (c *Cluster) inUse(key string) error {
	nodes, err := c.nodes(key)
	if err != nil || len(nodes) == 0 {
		return err
	}
	return &InUseError{By: nodes}
}

// Nodes names the nodes that have a lease on im, for people: some of them where
// they are many. Only a writer's root can ask.
func (c *Cluster) Nodes(im Image) ([]string, error) { return c.nodes(im.Key()) }

func (c *Cluster) nodes(key string) ([]string, error) {
	const most = 5
	leases, err := c.leases(key)
	var names []string
	for _, l := range leases {
		names = append(names, "node "+l.Node)
	}
	slices.Sort(names)
	if more := len(names) - most; more > 0 {
		names = append(names[:most], fmt.Sprintf("%d other nodes", more))
	}
	return names, err
}

// moveAway renames the folder of key and returns its new path, "" if there is none.
// The folder's time is then that of the removal.
func (c *Cluster) moveAway(key, mark string) (string, error) {
	from := filepath.Join(c.imagesDir(), key)
	to := filepath.Join(c.removedDir(), key+"."+randomID()+mark)
	err := touch(from)
	if err == nil {
		err = os.Rename(from, to)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err == nil {
		err = errors.Join(syncDir(c.imagesDir()), syncDir(c.removedDir()))
	}
	return to, unusable("remove image", key, err)
}

// touch sets the time of a folder to the file system's now.
func touch(path string) error {
	now := []unix.Timespec{{Nsec: unix.UTIME_NOW}, {Nsec: unix.UTIME_NOW}}
	err := unix.UtimesNanoAt(unix.AT_FDCWD, path, now, unix.AT_SYMLINK_NOFOLLOW)
	if err != nil {
		return &os.PathError{Op: "utimensat", Path: path, Err: err}
	}
	return nil
}

// putBack undoes moveAway, unless the image was pulled again since.
func (c *Cluster) putBack(key, from string) error {
	err := os.Rename(from, filepath.Join(c.imagesDir(), key))
	if errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err == nil {
		err = errors.Join(syncDir(c.imagesDir()), syncDir(c.removedDir()))
	}
	return unusable("put back image", key, err)
}

// Expunge removes the files of images that were removed long enough ago, and
// the pins of jobs that are over. An
// image on which there is a lease after all gets its name back. A writer's
// root calls it; what fails is left for the next time.
func (c *Cluster) Expunge(ctx context.Context) {
	_ = c.patiently(ctx, c.expunge)
}

func (c *Cluster) expunge() error {
	now, err := c.now()
	if err != nil {
		return err
	}
	err = c.expungePins(now)
	entries, derr := os.ReadDir(c.removedDir())
	err = errors.Join(err, derr)
	for _, e := range entries {
		info, ierr := e.Info()
		if ierr == nil && now.Sub(info.ModTime()) >= c.opts.RemoveDelay {
			err = errors.Join(err, c.expungeOne(e.Name()))
		}
	}
	return err
}

func (c *Cluster) expungeOne(name string) error {
	path := filepath.Join(c.removedDir(), name)
	key := workKey(name)
	if key == name || strings.HasSuffix(name, damagedMark) {
		return os.RemoveAll(path)
	}
	err := c.inUse(key)
	var used *InUseError
	if errors.As(err, &used) {
		err = c.putBack(key, path)
	}
	if err != nil {
		return err
	}
	return os.RemoveAll(path) // unless it was put back
}
