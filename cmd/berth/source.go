package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/berth-hpc/berth/cmd/internal/config"
	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/imagecache"
	"github.com/berth-hpc/berth/imagecache/store"
	"github.com/berth-hpc/berth/launcher/changes"
)

// A writable is what berth save and berth push write: a container, or an image.
type writable struct {
	name     string // as the user typed it
	ref      imagecache.Reference
	digest   store.Digest // zero: what ref stands for now
	platform string
	kept     *keptContainer // nil for an image
	changed  *imagecache.ChangedImage
}

func (w *writable) close() {
	if w.changed != nil {
		w.changed.Close()
	}
	if w.kept != nil {
		_ = w.kept.lock.Release()
	}
}

// openSource finds what name stands for: a container of that name, an image at
// hand by reference or digest, or an image that a reference leads to.
func (s *session) openSource(ctx context.Context, cfg *config.Config, name, platform string) (*writable, error) {
	if changes.CheckName(name) == nil {
		_, places, err := s.containers()
		if err != nil {
			return nil, err
		}
		container, _, err := findContainer(places, name)
		if err == nil {
			return openContainer(ctx, container)
		}
		if !errors.Is(err, changes.ErrNotFound) {
			return nil, err
		}
	}
	return s.openImageSource(ctx, cfg, name, platform)
}

func openContainer(ctx context.Context, container *changes.Container) (*writable, error) {
	ref, err := imagecache.ParseReference(container.Reference)
	if err != nil {
		return nil, err
	}
	lock, err := container.Lock(ctx)
	if err != nil {
		return nil, err
	}
	return &writable{
		name: container.Name, ref: ref, digest: container.Digest, platform: container.Platform,
		kept: &keptContainer{container, lock},
	}, nil
}

// openImageSource takes an image at hand as it is, even if its tag has moved.
func (s *session) openImageSource(ctx context.Context, cfg *config.Config, name, platform string) (*writable, error) {
	held, err := s.heldImages(ctx, cfg, tier{})
	if err != nil {
		return nil, err
	}
	byDigest := isDigest(name)
	h, err := findImage(held, name)
	switch {
	case err == nil && byDigest:
		return heldSource(h, name)
	case byDigest:
		return nil, err
	}
	ref, refErr := imagecache.ParseReference(name)
	if refErr != nil {
		return nil, refErr
	}
	w := &writable{name: name, ref: ref, platform: platform}
	want, err2 := imagecache.ParsePlatform(platform)
	if err2 != nil {
		return nil, err2
	}
	if have := platformOf(h.Image); err == nil && (platform == "" || have.OS == want.OS && have.Architecture == want.Architecture) {
		w.digest, w.platform = h.Record.Digest, have.String()
	}
	return w, nil
}

// heldSource is an image at hand, named by its digest.
func heldSource(h heldImage, name string) (*writable, error) {
	if len(h.Record.References) == 0 {
		return nil, &fault.Error{
			Op: "open", Arg: name, Blame: fault.User, Err: errors.New("where this image came from is not recorded"),
			Remedy: "name it by a reference",
		}
	}
	ref, err := imagecache.ParseReference(h.Record.References[0])
	return &writable{name: name, ref: ref, digest: h.Record.Digest, platform: platformOf(h.Image).String()}, err
}

// image opens the image where it came from, with a container's changes on it.
func (w *writable) image(ctx context.Context, s *session, cfg *config.Config, edit *imageConfig) (v1.Image, error) {
	platform, err := imagecache.ParsePlatform(w.platform)
	if err != nil {
		return nil, err
	}
	original, err := imagecache.OpenOriginal(ctx, w.ref, w.digest, platform, s.network(cfg))
	if err != nil || w.kept == nil {
		return original, err
	}
	c := w.changes()
	c.Config = edit.apply
	w.changed, err = imagecache.AddChanges(ctx, original, c)
	return w.changed, err
}

// changes are those of the container.
func (w *writable) changes() imagecache.Changes {
	return imagecache.Changes{
		Upper: w.kept.Upper(), Temp: w.kept.Dir(), CreatedBy: "berth save " + w.name, Privileged: packPrivileged,
	}
}

// dockerName is the name that docker load gives to what is saved without one.
func (w *writable) dockerName() string {
	if w.kept != nil {
		return strings.ToLower(strings.Trim(w.name, "_.-")) + ":latest"
	}
	repository, tag := w.ref.Repository(), w.ref.Tag()
	if repository == "" {
		repository = strings.ToLower(strings.TrimSuffix(path.Base(w.ref.Path()), path.Ext(w.ref.Path())))
	} else if w.ref.Host() != "docker.io" {
		repository = w.ref.Host() + "/" + repository
	}
	if tag == "" || strings.ContainsAny(tag, ":/") {
		tag = "latest"
	}
	return repository + ":" + tag
}

// commandWords reads a command of an image as Dockerfiles have it: a JSON
// list, or a line for a shell. An empty one is nil.
func commandWords(s string) ([]string, error) {
	switch {
	case s == "":
		return nil, nil
	case !strings.HasPrefix(strings.TrimSpace(s), "["):
		return []string{"/bin/sh", "-c", s}, nil
	}
	words := []string{}
	if err := json.Unmarshal([]byte(s), &words); err != nil {
		return nil, fmt.Errorf("%q is not a JSON list of words", s)
	}
	return words, nil
}
