package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/berth-hpc/berth/cmd/internal/config"
	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/imagecache"
	"github.com/berth-hpc/berth/imagecache/store"
)

// saveCmd writes a container, or an image, to a file or folder.
type saveCmd struct {
	Source   string `arg:"" name:"source" help:"A container that has a name (berth run --name), or an image; a container goes first."`
	Dest     string `arg:"" name:"destination" help:"FILE.sqsh, oci:FOLDER[:TAG], oci-archive:FILE[:TAG] or docker-archive:FILE[:TAG]. What it names is replaced."`
	Platform string `placeholder:"OS/ARCH" help:"Of an image, the platform to save instead of this machine's."`
	imageConfig
}

// Run prints the image's digest; a squashfs file has none.
func (c *saveCmd) Run(ctx context.Context, s *session) error {
	if err := guardSecrets(); err != nil {
		return err
	}
	cfg, err := s.settings()
	if err != nil {
		return err
	}
	to, err := imagecache.ParseDestination(c.Dest)
	if err != nil {
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
	show := s.newProgress(c.Dest)
	defer show.Close()
	if to.Format == imagecache.FormatSquashfs {
		return w.saveTree(ctx, s, cfg, &c.imageConfig, to.Path, show.Update)
	}
	im, err := w.image(ctx, s, cfg, &c.imageConfig)
	if err != nil {
		return err
	}
	digest, err := im.Digest() // compresses what comes uncompressed, once
	if err != nil {
		return fault.Wrap("save", c.Source, fault.Site, "", err)
	}
	if err := imagecache.Save(ctx, im, to, w.dockerName(), show.Update); err != nil {
		return err
	}
	show.Close()
	_, err = fmt.Fprintln(s.stdout, digest)
	return err
}

// saveTree writes the tree, and behind it the config, to a squashfs file.
func (w *writable) saveTree(ctx context.Context, s *session, cfg *config.Config, edit *imageConfig, path string, progress imagecache.ProgressFunc) error {
	name := w.ref.String()
	if !w.digest.IsZero() {
		name = pinned(name, w.digest)
	}
	image, tree, err := s.pullToUse(ctx, cfg, &imageRef{Image: name, Platform: w.platform})
	if err != nil {
		return err
	}
	defer tree.Close()
	manifest, err := image.Manifest()
	if err != nil {
		return err
	}
	var changed *imagecache.Changes
	if w.kept != nil {
		c := w.changes()
		changed = &c
	}
	return imagecache.SaveSquashfs(ctx, tree, changed, edit.edited(manifest.Config), path, limits(cfg), progress)
}

// imageConfig changes how the saved image is run.
type imageConfig struct {
	Env        []string `sep:"none" placeholder:"NAME=VALUE" help:"Set a variable in the image; repeatable."`
	Workdir    string   `placeholder:"PATH" help:"The folder in which the image's commands start."`
	Entrypoint string   `placeholder:"COMMAND" help:"The image's entrypoint: a JSON list of words, or a line for /bin/sh."`
	Cmd        string   `placeholder:"COMMAND" help:"The image's default command, written like --entrypoint."`
	Label      []string `sep:"none" placeholder:"NAME=VALUE" help:"Set a label of the image; repeatable."`
}

func (c *imageConfig) isEmpty() bool {
	return len(c.Env)+len(c.Label) == 0 && c.Workdir == "" && c.Entrypoint == "" && c.Cmd == ""
}

// check refuses, before anything is read, what cannot be done.
func (c *imageConfig) check(w *writable) error {
	refuse := func(cause, remedy string) error {
		return &fault.Error{Op: "change the image's config", Blame: fault.User, Err: errors.New(cause), Remedy: remedy}
	}
	switch {
	case c.isEmpty():
		return nil
	case w.kept == nil:
		return refuse("an image is saved as it is", "make a container of it first: berth run --name NAME IMAGE")
	}
	for _, v := range slices.Concat(c.Env, c.Label) {
		if name, _, ok := strings.Cut(v, "="); !ok || name == "" {
			return refuse(fmt.Sprintf("%q is not NAME=VALUE", v), "write --env NAME=VALUE, --label NAME=VALUE")
		}
	}
	_, err := commandWords(c.Entrypoint)
	if err == nil {
		_, err = commandWords(c.Cmd)
	}
	if err != nil {
		return refuse(err.Error(), `write a JSON list, as in --cmd '["samtools", "--version"]', or a line for /bin/sh`)
	}
	return nil
}

// edited is apply for what a store keeps of a config.
func (c *imageConfig) edited(had store.Config) store.Config {
	config := v1.Config{Env: had.Env, WorkingDir: had.WorkingDir, Entrypoint: had.Entrypoint, Cmd: had.Cmd, Labels: had.Labels}
	c.apply(&config)
	return store.Config{Env: config.Env, WorkingDir: config.WorkingDir, Entrypoint: config.Entrypoint, Cmd: config.Cmd, Labels: config.Labels}
}

// apply changes an image's config. check has passed.
func (c *imageConfig) apply(config *v1.Config) {
	for _, v := range c.Env {
		name, _, _ := strings.Cut(v, "=")
		config.Env = append(withoutVariable(config.Env, name), v)
	}
	if c.Workdir != "" {
		config.WorkingDir = c.Workdir
	}
	if list, _ := commandWords(c.Entrypoint); list != nil {
		config.Entrypoint, config.Cmd = list, nil // as in a Dockerfile: the old command was for the old entrypoint
	}
	if list, _ := commandWords(c.Cmd); list != nil {
		config.Cmd = list
	}
	for _, v := range c.Label {
		name, value, _ := strings.Cut(v, "=")
		if config.Labels == nil {
			config.Labels = map[string]string{}
		}
		config.Labels[name] = value
	}
}
