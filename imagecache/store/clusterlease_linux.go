package store

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A NodeLease says that a node uses an image of a cluster's store in place.
type NodeLease struct {
	Node string `json:"node"`
	Boot string `json:"boot"`
	// Renewed is the lease file's time as the file system tells it.
	Renewed time.Time `json:"renewed"`
	Expires time.Time `json:"expires"`
}

// leaseFile is what a lease's file holds: how long it counts from its mtime,
// in seconds, so that the nodes' own clocks don't matter.
type leaseFile struct {
	Seconds float64 `json:"seconds"`
}

func (c *Cluster) leasePath(d Digest) string {
	return filepath.Join(c.leasesDir(), Key(d), c.links.self.Host+"."+c.links.self.Boot)
}

// Lease writes, or renews, this node's lease on d. Have the image open before
// and look afterwards whether it is still InPlace: a removal looks for leases
// only after it took the image's name away.
func (c *Cluster) Lease(ctx context.Context, d Digest) error {
	err := c.patiently(ctx, func() error {
		err := c.lease(c.leasePath(d))
		if errors.Is(err, fs.ErrNotExist) { // another node's Unlease took the folder
			err = c.lease(c.leasePath(d))
		}
		return err
	})
	return unusable("lease image", d.String(), err)
}

func (c *Cluster) lease(path string) error {
	dir := filepath.Dir(path)
	err := os.Mkdir(dir, 0o755)
	if errors.Is(err, fs.ErrExist) {
		err = nil
	}
	if err != nil {
		return err
	}
	data, err := json.Marshal(leaseFile{Seconds: c.opts.Lease.Seconds()})
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|unix.O_NOFOLLOW, 0o644)
	if err != nil {
		return err
	}
	if err := writeAll(f, append(data, '\n'), 0o644); err != nil {
		return err
	}
	return syncDir(dir)
}

// Unlease ends this node's lease on d, if it has one.
func (c *Cluster) Unlease(ctx context.Context, d Digest) error {
	err := c.patiently(ctx, func() error {
		err := os.Remove(c.leasePath(d))
		_ = os.Remove(filepath.Dir(c.leasePath(d))) // if it was the last
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return unusable("end the lease of", d.String(), err)
}

// EndOldLeases ends the leases that this node had before it was booted last.
func (c *Cluster) EndOldLeases(ctx context.Context) error {
	return unusable("end old leases in", c.root, c.patiently(ctx, c.endOldLeases))
}

func (c *Cluster) endOldLeases() error {
	keys, err := os.ReadDir(c.leasesDir())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, key := range keys {
		dir := filepath.Join(c.leasesDir(), key.Name())
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			if node, boot := splitLease(e.Name()); node == c.links.self.Host && boot != c.links.self.Boot {
				err = errors.Join(err, ignoreMissing(os.Remove(filepath.Join(dir, e.Name()))))
			}
		}
	}
	return err
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// splitLease reads "<node>.<boot id>".
func splitLease(name string) (node, boot string) {
	i := strings.LastIndexByte(name, '.')
	if i < 0 {
		return name, ""
	}
	return name[:i], name[i+1:]
}

// leases returns the leases on key's image that hold. Of one node's only the
// latest counts: those before it are from before it was booted.
func (c *Cluster) leases(key string) ([]NodeLease, error) {
	now, err := c.now()
	if err != nil {
		return nil, unusable("read leases of", key, err)
	}
	dir := filepath.Join(c.leasesDir(), key)
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, unusable("read leases of", key, err)
	}
	latest := map[string]NodeLease{}
	for _, e := range entries {
		l, ok := c.readLease(filepath.Join(dir, e.Name()))
		if ok && now.Before(l.Expires) && l.Renewed.After(latest[l.Node].Renewed) {
			latest[l.Node] = l
		}
	}
	return slices.Collect(maps.Values(latest)), nil
}

// readLease also takes a lease that was cut short for one: its node may have
// crashed, or is writing it now.
func (c *Cluster) readLease(path string) (NodeLease, bool) {
	info, err := os.Lstat(path)
	if err != nil || !info.Mode().IsRegular() {
		return NodeLease{}, false
	}
	var f leaseFile
	if err := readJSON(path, &f); err != nil || f.Seconds <= 0 {
		f.Seconds = c.opts.Lease.Seconds()
	}
	l := NodeLease{Renewed: info.ModTime()}
	l.Node, l.Boot = splitLease(filepath.Base(path))
	l.Expires = l.Renewed.Add(time.Duration(f.Seconds * float64(time.Second)))
	return l, true
}

// now is the time as the file system gives it to files: that of leases and
// removals. Only a writer can ask.
func (c *Cluster) now() (time.Time, error) {
	f, err := os.CreateTemp(c.removedDir(), "now.")
	if err != nil {
		return time.Time{}, err
	}
	defer os.Remove(f.Name())
	_, err = f.WriteString("now\n")
	if err = errors.Join(err, f.Close()); err != nil {
		return time.Time{}, err
	}
	info, err := os.Stat(f.Name())
	if err != nil {
		return time.Time{}, err
	}
	return info.ModTime(), nil
}
