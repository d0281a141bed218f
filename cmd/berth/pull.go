package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/berth-hpc/berth/cmd/internal/config"
	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/imagecache"
	"github.com/berth-hpc/berth/imagecache/store"
)

// errNoHome is the cause when a user's store has no place.
var errNoHome = errors.New("you have no home folder")

// pullCmd puts an image into the user's own store.
type pullCmd struct {
	imageRef
	Timeout time.Duration `help:"Give up after this time (setting network.deadline)."`
	Keep    bool          `help:"Keep the image although nobody uses it; see berth keep."`
	KeepFor time.Duration `placeholder:"DURATION" help:"Keep it for so long, as in 720h."`
	JSON    bool          `name:"json" help:"Print the image's record as JSON."`
}

// Run prints the digest, so that scripts can go on with it.
func (c *pullCmd) Run(ctx context.Context, s *session) error {
	if err := guardSecrets(); err != nil {
		return err
	}
	cfg, err := s.settings()
	if err != nil {
		return err
	}
	if c.Timeout > 0 {
		cfg.Network.Deadline = c.Timeout
	}
	image, err := s.pull(ctx, cfg, &c.imageRef)
	if err != nil {
		return err
	}
	if c.Keep || c.KeepFor > 0 {
		if image, err = c.keep(ctx, s, cfg, image); err != nil {
			return err
		}
	}
	if c.JSON {
		own, err := ownStore(cfg)
		if err != nil {
			return err
		}
		held, err := place{Store: own}.describe(ctx, image)
		if err != nil {
			return err
		}
		return s.printJSON(held)
	}
	_, err = fmt.Fprintln(s.stdout, image.Digest())
	return err
}

// keep keeps the image, and pulls it again if it made room for another one
// just before.
func (c *pullCmd) keep(ctx context.Context, s *session, cfg *config.Config, image store.Image) (store.Image, error) {
	own, err := ownStore(cfg)
	if err != nil {
		return image, err
	}
	if err := own.Keep(image.Digest(), "", keepFor(c.KeepFor, "")); err != nil {
		return image, err
	}
	if _, err := own.Get(image.Digest()); errors.Is(err, store.ErrNotFound) {
		return s.pull(ctx, cfg, &c.imageRef)
	}
	return image, nil
}

// pullToUse is pull, and opens the image's file in a way that keeps the image
// in the store. It pulls again what made room for another image in between.
func (s *session) pullToUse(ctx context.Context, cfg *config.Config, r *imageRef) (image store.Image, rootfs *os.File, err error) {
	const tries = 3
	for range tries {
		if image, err = s.pull(ctx, cfg, r); err != nil {
			break
		}
		if rootfs, err = image.Use(ctx); !errors.Is(err, store.ErrNotFound) {
			break
		}
	}
	return image, rootfs, err
}

// pull makes sure that an image is in the user's store, showing progress.
func (s *session) pull(ctx context.Context, cfg *config.Config, r *imageRef) (store.Image, error) {
	ref, platform, err := r.parse()
	if err != nil {
		return store.Image{}, err
	}
	images, err := ownStore(cfg)
	if err != nil {
		return store.Image{}, err
	}
	space, err := ownSpace(cfg, images)
	if err != nil {
		return store.Image{}, err
	}
	show := s.newProgress(ref.String())
	defer show.Close()
	opts := fetchOptions(cfg, s.network(cfg))
	opts.Platform, opts.Progress, opts.Space = platform, show.Update, space
	ctx, cancel := deadline(ctx, cfg.Network.Deadline)
	defer cancel()
	image, err := imagecache.Pull(ctx, images, ref, opts)
	if cause := context.Cause(ctx); err != nil && errors.Is(cause, context.DeadlineExceeded) {
		err = cause // broken connections are only its signs
	}
	return image, err
}

// deadline ends ctx after d, for ever if that is zero.
func deadline(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	if d == 0 {
		return ctx, func() {}
	}
	return context.WithTimeoutCause(ctx, d, &fault.Error{
		Op: "pull", Blame: fault.Site, Err: fmt.Errorf("it took more than %v: %w", d, context.DeadlineExceeded),
		Remedy: "pull again when the network is faster; the limit is network.deadline in Berth's configuration, or --timeout",
	})
}
