package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/berth-hpc/berth/imagecache/store"
	"github.com/berth-hpc/berth/prolog"
)

// keepCmd keeps images in their store although nobody uses them.
type keepCmd struct {
	tier
	Images  []string      `arg:"" name:"image" help:"References that were pulled, or digests (sha256: and at least 6 digits)."`
	For     time.Duration `placeholder:"DURATION" help:"Keep them for so long, as in 720h; else until --release."`
	Reason  string        `placeholder:"TEXT" help:"Why, for those who list images."`
	Release bool          `xor:"what" help:"Keep them no longer."`
	JSON    bool          `name:"json" help:"Print the images' records as JSON."`
}

// Run prints the digests of the images, or their records.
func (c *keepCmd) Run(ctx context.Context, s *session) error {
	cfg, err := s.settings()
	if err != nil {
		return err
	}
	held := []heldImage{}
	for _, name := range c.Images {
		found, err := s.matches(ctx, cfg, c.tier, "keep image", name)
		if err != nil {
			return err
		}
		for _, m := range found {
			if err := c.keep(m); err != nil {
				return err
			}
			m.Kept = m.place.Kept(m.image)
			held = append(held, m.heldImage)
		}
	}
	if c.JSON {
		return s.printJSON(held)
	}
	for _, h := range held {
		fmt.Fprintf(s.stdout, "%s kept %s\n", h.Record.Digest, kept(h.Kept))
	}
	return nil
}

func (c *keepCmd) keep(m match) error {
	digest := m.image.Digest()
	if err := m.place.mine("keep image", digest.String()); err != nil {
		return err
	}
	if c.Release {
		return release(m.place, digest)
	}
	if err := m.place.Keep(digest, "", keepFor(c.For, c.Reason)); err != nil {
		return err
	}
	_, err := m.place.Get(digest) // it may have made room for another one just before
	return err
}

// release ends what the owner keeps, by hand and by lists.
func release(p place, d store.Digest) error {
	return errors.Join(p.Release(d, ""), p.Release(d, prolog.WarmHolder))
}

// keepFor is a keep that begins now; zero is for ever.
func keepFor(d time.Duration, reason string) store.Keep {
	k := store.Keep{Reason: reason}
	if d > 0 {
		k.Until = time.Now().Add(d).UTC().Round(time.Second)
	}
	return k
}
