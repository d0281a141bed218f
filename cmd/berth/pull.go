package main

import (
	"context"
	"errors"
	"fmt"
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
	if c.JSON {
		held, err := describe(image, cfg.Store.UserDir)
		if err != nil {
			return err
		}
		return s.printJSON(held)
	}
	_, err = fmt.Fprintln(s.stdout, image.Digest())
	return err
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
	show := s.newProgress(ref.String())
	defer show.Close()
	opts := fetchOptions(cfg, s.network(cfg))
	opts.Platform, opts.Progress = platform, show.Update
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
