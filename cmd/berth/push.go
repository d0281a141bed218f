package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/berth-hpc/berth/cmd/internal/config"
	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/imagecache"
	"github.com/berth-hpc/berth/imagecache/store"
)

// pushCmd writes a container, or an image, to a registry.
type pushCmd struct {
	Source   string `arg:"" name:"source" help:"A container that has a name (berth run --name), or an image; a container goes first."`
	Dest     string `arg:"" name:"destination" help:"[REGISTRY/]NAME[:TAG]."`
	Platform string `placeholder:"OS/ARCH" help:"Of an image, the platform to push instead of this machine's."`
	All      bool   `help:"Of an image, push every platform that its source has now, under the same digest."`
	imageConfig
}

// Run prints the digest under which the registry has the image.
func (c *pushCmd) Run(ctx context.Context, s *session) error {
	if err := guardSecrets(); err != nil {
		return err
	}
	cfg, err := s.settings()
	if err != nil {
		return err
	}
	to, err := imagecache.ParseReference(c.Dest)
	if err != nil {
		return err
	}
	if err := imagecache.CheckPushTarget(to); err != nil {
		return err
	}
	w, err := s.openSource(ctx, cfg, c.Source, c.Platform)
	if err != nil {
		return err
	}
	defer w.close()
	if err := c.check(w); err != nil {
		return err
	}
	show := s.newProgress(to.String())
	defer show.Close()
	opts := imagecache.PushOptions{Network: s.network(cfg), Parallel: cfg.Network.Parallel, Progress: show.Update}
	digest, err := c.push(ctx, s, cfg, w, to, opts)
	if err != nil {
		return err
	}
	show.Close()
	_, err = fmt.Fprintln(s.stdout, digest)
	return err
}

func (c *pushCmd) push(ctx context.Context, s *session, cfg *config.Config, w *writable, to imagecache.Reference, opts imagecache.PushOptions) (store.Digest, error) {
	if c.All {
		if w.kept != nil || c.Platform != "" {
			return store.Digest{}, &fault.Error{
				Op: "push", Arg: c.Source, Blame: fault.User, Err: errors.New("--all is for images, and without --platform"),
				Remedy: "leave --all out",
			}
		}
		return imagecache.PushAll(ctx, w.ref, to, opts)
	}
	im, err := w.image(ctx, s, cfg, &c.imageConfig)
	if err != nil {
		return store.Digest{}, err
	}
	return imagecache.Push(ctx, im, to, opts)
}
