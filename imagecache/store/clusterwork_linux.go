package store

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

// Work folders of a cluster's store are named <key>.<hold>.<random>: a holder
// whose lock was taken over may still be at work beside its successor.

// workPrefix begins the name of the lock's work folders.
func (l *Lock) workPrefix() string {
	if l.link != nil {
		return l.key + "." + l.link.is.holder.ID + "."
	}
	return l.key + "."
}

// SetProgress tells those who wait, on other nodes, how far the holder is, in
// one line, with its next sign of life. Waiters on one node see no progress.
func (l *Lock) SetProgress(line string) {
	if l.link != nil {
		l.link.progress.Store(&line)
	}
}

// sweepLinked removes the work of former holders of key's lock, which the
// caller holds, and that of images whose lock nobody has. No key is "".
func (c *Cluster) sweepLinked(key string) {
	if key != "" {
		c.links.sweep(key)
	}
	work := c.workNames() // before the look at the locks: later work is not meant
	for _, name := range work {
		other := workKey(name)
		_, err := os.Lstat(c.links.path(other))
		if other == key || errors.Is(err, os.ErrNotExist) {
			c.removeLinked(name)
		}
	}
}

// workNames lists the names of all work folders.
func (s *Store) workNames() []string {
	var names []string
	for _, dir := range []string{s.tmpDir(), s.newDir()} {
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			names = append(names, e.Name())
		}
	}
	return names
}

// workKey returns the "<hex>.<policy>" that a work folder's name begins with,
// or the name itself where it is no such name.
func workKey(name string) string {
	parts := strings.SplitN(name, ".", 3)
	if len(parts) < 3 {
		return name
	}
	return parts[0] + "." + parts[1]
}

// removeLinked removes the work folders whose names begin with prefix. Each is
// renamed first: of a removal and a
// publication at the same time one finds nothing, and never is a folder
// published that is half removed.
func (s *Store) removeLinked(prefix string) {
	for _, dir := range []string{s.tmpDir(), s.newDir()} {
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			if !strings.HasPrefix(e.Name(), prefix) {
				continue
			}
			gone := filepath.Join(dir, e.Name()+".gone."+randomID())
			if os.Rename(filepath.Join(dir, e.Name()), gone) == nil {
				_ = os.RemoveAll(gone)
			}
		}
	}
}

// Probe tries what a writer's locks need, under a name that no image has.
func (c *Cluster) Probe(ctx context.Context) error {
	return unusable("lock in", c.root, c.patiently(ctx, func() error {
		held, err := c.links.try("probe-" + randomID())
		if err != nil || held == nil { // nil: Tidy was at it just then
			return err
		}
		return held.release()
	}))
}

// Tidy removes what the dead left in the cluster's store, locks as well. It
// takes a little longer than Stale where it has to find out who is dead. A
// writer's root calls it.
func (c *Cluster) Tidy(ctx context.Context) error {
	entries, err := os.ReadDir(c.locksDir())
	if err != nil {
		return unusable("tidy", c.root, err)
	}
	var left []string
	var locks sync.WaitGroup
	for _, e := range entries {
		key, isLock := strings.CutSuffix(e.Name(), ".lock")
		if !isLock {
			left = append(left, filepath.Join(c.locksDir(), e.Name()))
			continue
		}
		locks.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, c.opts.Stale*3/2)
			defer cancel()
			_ = c.links.wait(ctx, key, true, func(lockFile) {}) // an error: its holder lives
		})
	}
	locks.Wait()
	for _, path := range left { // those who need one make it again
		_ = os.Remove(path)
	}
	c.sweepLinked("")
	c.Expunge(ctx)
	return ctx.Err()
}
