package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/berth-hpc/berth/cmd/internal/config"
	"github.com/berth-hpc/berth/cmd/internal/site"
	"github.com/berth-hpc/berth/imagecache"
	"github.com/berth-hpc/berth/imagecache/store"
	"github.com/berth-hpc/berth/launcher"
	"github.com/berth-hpc/berth/launcher/changes"
)

// explainEnv prints the environment that the command would have, and where
// each variable comes from.
func (c *runCmd) explainEnv(ctx context.Context, s *session, cfg *config.Config) error {
	env, err := c.imageEnv(ctx, s, cfg)
	if err != nil {
		return err
	}
	if env, err = launcher.ImageEnv(env); err != nil {
		return err
	}
	all := launcher.ExplainEnv(c.given.over(s.withoutLogins()), env, c.given.names(), site.Of(&cfg.Container).Env)
	if c.JSON {
		return s.printJSON(all)
	}
	return printVariables(s.stdout, all)
}

// imageEnv returns the variables of the image, none where no image is named.
func (c *runCmd) imageEnv(ctx context.Context, s *session, cfg *config.Config) ([]string, error) {
	image, err := c.namedImage(ctx, s, cfg)
	switch {
	case err != nil:
		return nil, err
	case image != nil:
		return envOf(*image)
	case c.Image == "":
		return nil, nil
	}
	inPlace, err := c.inPlace(s)
	if err != nil {
		return nil, err
	}
	if inPlace {
		tree, err := imagecache.TreeConfig(c.Image)
		return tree.Env, err
	}
	pulled, rootfs, err := s.pullToUse(ctx, cfg, c.imageRef())
	if err != nil {
		return nil, err
	}
	rootfs.Close()
	return envOf(pulled)
}

// namedImage returns the image below an existing container with a name, or nil.
func (c *runCmd) namedImage(ctx context.Context, s *session, cfg *config.Config) (*store.Image, error) {
	if c.Name == "" {
		return nil, nil
	}
	images, err := ownStore(cfg)
	if err != nil {
		return nil, err
	}
	container, err := changes.In(images.Root()).Get(c.Name)
	if errors.Is(err, changes.ErrNotFound) && c.Image != "" {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	image, err := c.imageOf(ctx, s, cfg, container)
	return &image, err
}

func envOf(image store.Image) ([]string, error) {
	manifest, err := image.Manifest()
	if err != nil {
		return nil, err
	}
	return manifest.Config.Env, nil
}

func printVariables(w io.Writer, all []launcher.Variable) error {
	for _, v := range all {
		from, why := v.From, ""
		if v.Gone {
			from = "gone"
		}
		if v.Why != "" {
			why = "  (" + v.Why + ")"
		}
		if _, err := fmt.Fprintf(w, "%-5s  %s=%s%s\n", from, oneLine(v.Name), oneLine(v.Value), why); err != nil {
			return err
		}
	}
	return nil
}

// oneLine keeps a value from looking like more than one line.
func oneLine(s string) string {
	quoted := strconv.Quote(s)
	if plain := strings.ReplaceAll(quoted[1:len(quoted)-1], `\"`, `"`); plain == s {
		return s
	}
	return quoted
}
