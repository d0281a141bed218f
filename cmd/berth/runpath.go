package main

import (
	"context"
	"errors"
	"strings"

	"github.com/berth-hpc/berth/cmd/internal/config"
	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/imagecache"
	"github.com/berth-hpc/berth/imagecache/store"
	"github.com/berth-hpc/berth/imagefile"
	"github.com/berth-hpc/berth/launcher"
)

// imageIsFile tells a path from a reference, as the Slurm plugin does.
func imageIsFile(image string) bool {
	return strings.HasPrefix(image, "/") || strings.HasPrefix(image, ".")
}

// inPlace reports whether the image is a tree that runs where it lies: a
// folder, or a squashfs or SIF file where FUSE can be had. All else is
// converted first.
func (c *runCmd) inPlace(s *session) (bool, error) {
	if !imageIsFile(c.Image) {
		return false, nil
	}
	kind, err := imagefile.Identify(c.Image)
	if err != nil {
		if inner := errors.Unwrap(err); inner != nil {
			err = inner
		}
		return false, fault.Wrap("open image", c.Image, fault.User, "check the path", err)
	}
	switch kind {
	case imagefile.Tree:
		return true, nil
	case imagefile.Squashfs, imagefile.SIF:
		missing := fuseMissing()
		if missing != nil {
			s.log.Warnf("converting %s, because images can't be mounted here (%v)", c.Image, missing)
		}
		return missing == nil, nil
	}
	return false, nil
}

// runPath runs a command in a tree as it lies, which has no store and no
// digest, and only the config that its maker left inside.
func (c *runCmd) runPath(ctx context.Context, s *session, cfg *config.Config) error {
	image := store.Config{}
	if len(c.Command) == 0 {
		var err error
		if image, err = imagecache.TreeConfig(c.Image); err != nil {
			return err
		}
	}
	argv, err := c.argv(image)
	if err != nil {
		return err
	}
	req, err := c.request(s, cfg)
	if err != nil {
		return err
	}
	req.Image = launcher.Root{Kind: launcher.RootFile, Path: c.Image}
	return c.start(ctx, s, cfg, &launcher.Creation{Request: req}, argv)
}
