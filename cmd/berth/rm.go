package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/berth-hpc/berth/cmd/internal/config"
	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/imagecache/store"
	"github.com/berth-hpc/berth/prolog"
)

// rmCmd removes images from the user's own store; for root from the node's,
// too.
type rmCmd struct {
	tier
	Images []string `arg:"" name:"image" help:"References that were pulled, or digests (sha256: and at least 6 digits). All that is known by a name goes, with its other names."`
	Force  bool     `help:"Remove images of one's own store that are in use: what runs keeps them until it ends, on most file systems."`
	JSON   bool     `name:"json" help:"Print what was removed as JSON."`
}

// A removedImage is what `--json` prints of one.
type removedImage struct {
	Digest store.Digest `json:"digest"`
	Store  string       `json:"store"`
	Size   int64        `json:"size_bytes"`
}

// Run removes what it can, and fails if that is not all.
func (c *rmCmd) Run(ctx context.Context, s *session) error {
	cfg, err := s.settings()
	if err != nil {
		return err
	}
	removed := []removedImage{}
	for _, name := range c.Images {
		some, nameErr := c.remove(ctx, s, cfg, name)
		removed = append(removed, some...)
		if err == nil {
			err = nameErr
		} else if nameErr != nil {
			s.log.Error(nameErr)
		}
	}
	if c.JSON {
		if perr := s.printJSON(removed); err == nil {
			err = perr
		}
		return err
	}
	for _, r := range removed {
		fmt.Fprintf(s.stdout, "removed %s, %s\n", r.Digest, megabytes(r.Size))
	}
	return err
}

func (c *rmCmd) remove(ctx context.Context, s *session, cfg *config.Config, name string) (removed []removedImage, err error) {
	const op = "remove image"
	found, err := s.matches(ctx, cfg, c.tier, op, name)
	if err != nil {
		return nil, err
	}
	for _, m := range found {
		if rerr := c.removeOne(ctx, m); rerr != nil {
			err = errors.Join(err, rerr)
			continue
		}
		removed = append(removed, removedImage{m.Record.Digest, m.Store, m.Size})
	}
	return removed, err
}

func (c *rmCmd) removeOne(ctx context.Context, m match) error {
	digest := m.image.Digest()
	if err := m.place.mine("remove image", digest.String()); err != nil {
		return err
	}
	if err := c.discard(ctx, m); err != nil {
		var used *store.InUseError
		if errors.As(err, &used) {
			err = &fault.Error{Op: "remove image", Arg: digest.String(), Blame: fault.User, Err: err, Remedy: "wait until that has ended, or end it"}
		}
		return err
	}
	return release(m.place, digest) // it was kept by whoever removes it now
}

func (c *rmCmd) discard(ctx context.Context, m match) error {
	holders := slices.DeleteFunc(m.place.Holders(m.image), func(h string) bool { return h == prolog.WarmHolder })
	if len(holders) > 0 {
		return &store.InUseError{By: holders}
	}
	if m.place.cluster != nil {
		return m.place.cluster.Remove(m.image)
	}
	if !c.Force || m.place.node {
		return m.place.Discard(ctx, m.image, m.place.space.Users)
	}
	lock, err := m.place.Lock(ctx, m.image.Digest(), nil)
	if err != nil {
		return err
	}
	return errors.Join(lock.Remove(m.image), lock.Release())
}
