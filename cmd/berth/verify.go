package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/imagecache/store"
)

// verifyCmd reads every image at hand and compares it with what was written.
// Squashfs has no checksums, so nothing else finds a bit that flipped on disk.
type verifyCmd struct {
	Remove bool `help:"Remove what is damaged, so that it is pulled again when it is next asked for."`
}

// Run prints a line for each image. It exits 75 if one is damaged.
func (c *verifyCmd) Run(ctx context.Context, s *session) error {
	cfg, err := s.settings()
	if err != nil {
		return err
	}
	damaged := 0
	for _, root := range []string{cfg.Store.UserDir, cfg.Store.Dir} {
		images, err := store.OpenExisting(root)
		if err != nil || root == "" {
			continue // as for berth images: no store there, or not ours to read
		}
		list, err := images.List()
		if err != nil {
			return err
		}
		for _, image := range list {
			bad, err := c.verify(ctx, s, images, image)
			if err != nil {
				return err
			}
			damaged += bad
		}
	}
	if damaged == 0 {
		return nil
	}
	return &fault.Error{
		Op: "verify", Blame: fault.Site, Err: fmt.Errorf("%d images are damaged", damaged),
		Remedy: "look at the disk below the store; berth verify --remove removes them, and they are pulled again",
	}
}

// verify returns 1 for a damaged image.
func (c *verifyCmd) verify(ctx context.Context, s *session, images *store.Store, image store.Image) (int, error) {
	err := image.Verify(ctx)
	if err == nil {
		fmt.Fprintf(s.stdout, "ok       %s %s\n", image.Digest(), images.Root())
		return 0, nil
	}
	if !errors.Is(err, store.ErrDamaged) {
		return 0, err
	}
	fmt.Fprintf(s.stdout, "damaged  %s %s: %s\n", image.Digest(), images.Root(), printable(err.Error()))
	if !c.Remove {
		return 1, nil
	}
	lock, err := images.Lock(ctx, image.Digest(), nil)
	if err != nil {
		return 1, err
	}
	return 1, errors.Join(lock.Remove(image), lock.Release())
}
