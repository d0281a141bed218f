package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/berth-hpc/berth/fault"
)

// ErrInUse is the cause when an image cannot be removed because somebody uses
// it.
var ErrInUse = errors.New("the image is in use")

// damagedMark ends the name of a removed image that must not come back.
const damagedMark = ".damaged"

// Remove takes d out of the cluster's store, unless a node has a lease on it:
// then the error is ErrInUse. The image loses its name at once, so that nobody
// begins to use it; its file stays for RemoveDelay, for nodes that are copying
// it, and goes with a later Expunge. A writer's root calls it.
func (c *Cluster) Remove(d Digest) error {
	if err := c.inUse(d); err != nil {
		return err
	}
	gone, err := c.moveAway(d, "")
	if err != nil || gone == "" {
		return err
	}
	c.did("moved away")
	// A node that had not yet written its lease then sees that the name is
	// gone; one that had is seen here.
	if used := c.inUse(d); used != nil {
		return errors.Join(used, c.putBack(d, gone))
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
	_, err = c.moveAway(d, damagedMark)
	return err
}

// inUse is ErrInUse if a node has a lease on d.
func (c *Cluster) inUse(d Digest) error {
	leases, err := c.Leases(d)
	if err != nil || len(leases) == 0 {
		return err
	}
	nodes := leases[0].Node
	if len(leases) > 1 {
		nodes = fmt.Sprintf("%s and %d other nodes", nodes, len(leases)-1)
	}
	return &fault.Error{
		Op: "remove image", Arg: d.String(), Blame: fault.User,
		Remedy: "wait until the jobs that use it have ended", Err: fmt.Errorf("%w by %s", ErrInUse, nodes),
	}
}

// moveAway renames d's folder and returns its new path, "" if there is none.
// The folder's time is then that of the removal.
func (c *Cluster) moveAway(d Digest, mark string) (string, error) {
	from := filepath.Join(c.imagesDir(), Key(d))
	to := filepath.Join(c.removedDir(), Key(d)+"."+randomID()+mark)
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
	return to, unusable("remove image", d.String(), err)
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
func (c *Cluster) putBack(d Digest, from string) error {
	err := os.Rename(from, filepath.Join(c.imagesDir(), Key(d)))
	if errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err == nil {
		err = errors.Join(syncDir(c.imagesDir()), syncDir(c.removedDir()))
	}
	return unusable("put back image", d.String(), err)
}

// Expunge removes the files of images that were removed long enough ago. An
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
	entries, err := os.ReadDir(c.removedDir())
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
	hex, _, _ := strings.Cut(name, ".")
	d, err := ParseDigest(digestPrefix + hex)
	if err != nil || strings.HasSuffix(name, damagedMark) {
		return os.RemoveAll(path)
	}
	switch err := c.inUse(d); {
	case errors.Is(err, ErrInUse):
		if err := c.putBack(d, path); err != nil {
			return err
		}
	case err != nil:
		return err
	}
	return os.RemoveAll(path) // unless it was put back
}
