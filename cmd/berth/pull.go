package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/berth-hpc/berth/cmd/internal/config"
	"github.com/berth-hpc/berth/imagecache"
	"github.com/berth-hpc/berth/imagecache/store"
)

// errNoHome is the cause when a user's store has no place.
var errNoHome = errors.New("you have no home folder")

// pullCmd puts an image into the user's own store.
type pullCmd struct {
	imageRef
	JSON bool `name:"json" help:"Print the image's record as JSON."`
}

// Run prints the digest, so that scripts can go on with it.
func (c *pullCmd) Run(ctx context.Context, s *session) error {
	cfg, err := s.settings()
	if err != nil {
		return err
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
	return imagecache.Pull(ctx, images, ref, imagecache.FetchOptions{
		Network: network(cfg), Converter: imagecache.ConverterNamed(cfg.Store.Converter), Platform: platform, Progress: show.Update, Version: berthVersion(),
	})
}
