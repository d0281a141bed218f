package store

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// pinLife is how long a pin stays: longer than a job runs, requeues included,
// shorter than a scheduler takes to give a number again.
const pinLife = 14 * 24 * time.Hour

// maxPin bounds a pin's file in bytes; a digest takes 72.
const maxPin = 256

func (c *Cluster) pinsDir() string { return filepath.Join(c.root, "pins") }

// Pin says on all nodes that d is what a job's image means, unless another
// node has said what it means before, and returns the digest that counts. name
// names the job and the image; it is one element of a path. Of all nodes that
// pin at once, link(2) lets one win. A node that may not write returns what is
// pinned, and ErrNotFound if nothing is.
func (c *Cluster) Pin(ctx context.Context, name string, d Digest) (Digest, error) {
	if !c.opts.Writer {
		return c.Pinned(ctx, name)
	}
	err := c.patiently(ctx, func() error { return c.pin(name, d) })
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return Digest{}, unusable("pin", name, err)
	}
	return c.Pinned(ctx, name)
}

func (c *Cluster) pin(name string, d Digest) error {
	err := c.linkPin(name, d)
	if errors.Is(err, fs.ErrNotExist) { // the first pin ever
		err = errors.Join(makeShared(c.pinsDir(), 0o755), c.linkPin(name, d))
	}
	return err
}

func (c *Cluster) linkPin(name string, d Digest) error {
	own := filepath.Join(c.pinsDir(), "."+randomID())
	f, err := os.OpenFile(own, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o644)
	if err != nil {
		return err
	}
	defer os.Remove(own)
	if err := writeAll(f, []byte(d.String()+"\n"), 0o644); err != nil {
		return err
	}
	return linkOnce(own, filepath.Join(c.pinsDir(), name))
}

// Pinned returns what was pinned under name, or ErrNotFound.
func (c *Cluster) Pinned(ctx context.Context, name string) (Digest, error) {
	d, err := patiently(ctx, c.opts.Patience, func() (Digest, error) { return c.readPin(name) })
	if errors.Is(err, fs.ErrNotExist) {
		return Digest{}, ErrNotFound
	}
	return d, unusable("read the pin", name, err)
}

func (c *Cluster) readPin(name string) (Digest, error) {
	dir, err := openTrustedDir(c.root, "pins")
	if err != nil {
		return Digest{}, err
	}
	defer dir.Close()
	f, err := openBelow(dir, name, unix.O_NONBLOCK)
	if err != nil {
		return Digest{}, err
	}
	defer f.Close()
	// It has a second name while its writer still has the first.
	if err := checkOwner(f, unix.S_IFREG); err != nil {
		return Digest{}, err
	}
	text, err := io.ReadAll(io.LimitReader(f, maxPin))
	if err != nil {
		return Digest{}, err
	}
	return ParseDigest(strings.TrimSuffix(string(text), "\n"))
}

// expungePins removes pins of jobs that are long over.
func (c *Cluster) expungePins(now time.Time) error {
	entries, err := os.ReadDir(c.pinsDir())
	for _, e := range entries {
		info, ierr := e.Info()
		if ierr == nil && now.Sub(info.ModTime()) >= pinLife {
			err = errors.Join(err, os.Remove(filepath.Join(c.pinsDir(), e.Name())))
		}
	}
	return ignoreMissing(err)
}
