package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/berth-hpc/berth/cmd/internal/config"
	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/imagecache"
	"github.com/berth-hpc/berth/imagecache/store"
	"github.com/berth-hpc/berth/launcher"
	"github.com/berth-hpc/berth/launcher/changes"
	"golang.org/x/sys/unix"
)

// imageRef is how the command names its image, for pull.
func (c *runCmd) imageRef() *imageRef { return &imageRef{Image: c.Image, Platform: c.Platform} }

// splitCommand finds out whether IMAGE was left out: with --name, all that
// comes after "--" is the command. kong would take its first word for IMAGE.
func (c *runCmd) splitCommand(args []string) {
	i := slices.Index(args, "--")
	if c.Name != "" && i >= 0 && c.Image != "" && len(args)-i-1 == len(c.Command)+1 {
		c.Command, c.Image = append([]string{c.Image}, c.Command...), ""
	}
}

// A keptContainer is a container under a name that this process uses alone.
type keptContainer struct {
	*changes.Container
	lock *changes.Lock
}

// use makes a creation go on with the container's changes, and the lock last
// as long as the container: the image's server holds it or, where there is
// none, the command.
func (k *keptContainer) use(creation *launcher.Creation, writable bool) error {
	creation.Request.Changes, creation.Request.Writable = k.Dir(), writable
	if creation.Request.Image.Kind == launcher.RootFUSE {
		creation.Hold = k.lock.File
		return nil
	}
	_, err := unix.FcntlInt(k.lock.File.Fd(), unix.F_SETFD, 0)
	return err
}

// runNamed is Run for a container under a name.
func (c *runCmd) runNamed(ctx context.Context, s *session, cfg *config.Config) error {
	kept, image, err := c.openNamed(ctx, s, cfg)
	if err != nil {
		return err
	}
	defer func() { _ = kept.lock.Release() }()
	rootfs, err := image.Use(ctx)
	if err != nil {
		return err
	}
	defer rootfs.Close()
	return c.become(ctx, s, cfg, image, rootfs, kept)
}

// openNamed returns the container, made if need be, and its image.
func (c *runCmd) openNamed(ctx context.Context, s *session, cfg *config.Config) (*keptContainer, store.Image, error) {
	images, err := ownStore(cfg)
	if err != nil {
		return nil, store.Image{}, err
	}
	containers := changes.In(images.Root())
	container, err := containers.Get(c.Name)
	switch {
	case errors.Is(err, changes.ErrNotFound) && c.Image != "":
		return c.makeNamed(ctx, s, cfg, images, containers)
	case err != nil:
		return nil, store.Image{}, err
	}
	lock, err := container.Lock(ctx)
	if err != nil {
		return nil, store.Image{}, err
	}
	image, err := c.imageOf(ctx, s, cfg, container)
	if err != nil {
		return nil, store.Image{}, errors.Join(err, lock.Release())
	}
	return &keptContainer{container, lock}, image, nil
}

func (c *runCmd) makeNamed(ctx context.Context, s *session, cfg *config.Config, images *store.Store, containers changes.Containers) (*keptContainer, store.Image, error) {
	if err := changes.CheckName(c.Name); err != nil {
		return nil, store.Image{}, err
	}
	image, err := s.pull(ctx, cfg, c.imageRef())
	if err != nil {
		return nil, store.Image{}, err
	}
	record, err := c.record(image)
	if err != nil {
		return nil, store.Image{}, err
	}
	containers.Sweep()
	if err := images.Keep(record.Digest, holder(c.Name), store.Keep{Reason: "container " + c.Name}); err != nil {
		return nil, store.Image{}, err
	}
	container, lock, err := containers.Make(ctx, record)
	return &keptContainer{container, lock}, image, err
}

// holder is who keeps the image below a container in the store.
func holder(name string) string { return "container-" + name }

// record describes a new container.
func (c *runCmd) record(image store.Image) (changes.Record, error) {
	ref, err := imagecache.ParseReference(c.Image)
	if err != nil {
		return changes.Record{}, err
	}
	manifest, err := image.Manifest()
	if err != nil {
		return changes.Record{}, err
	}
	name, err := fromAnywhere(ref)
	return changes.Record{
		Name: c.Name, Digest: image.Digest(), Reference: name, Platform: platformOf(manifest).String(), Created: time.Now().UTC(),
	}, err
}

func platformOf(m store.Manifest) imagecache.Platform {
	return imagecache.Platform{OS: m.OS, Architecture: m.Architecture, Variant: m.Variant}
}

// fromAnywhere writes a reference so that it means the same in every folder.
func fromAnywhere(ref imagecache.Reference) (string, error) {
	if ref.Path() == "" {
		return ref.String(), nil
	}
	path, err := filepath.Abs(ref.Path())
	return strings.Replace(ref.String(), ref.Path(), path, 1), err
}

// imageOf returns the image below a container's changes, pulled again if it
// has been removed, and refuses another one than the user names.
func (c *runCmd) imageOf(ctx context.Context, s *session, cfg *config.Config, container *changes.Container) (store.Image, error) {
	if err := c.checkImage(container); err != nil {
		return store.Image{}, err
	}
	images, err := ownStore(cfg)
	if err != nil {
		return store.Image{}, err
	}
	image, err := images.Get(container.Digest)
	if !errors.Is(err, store.ErrNotFound) {
		return image, err
	}
	image, err = s.pull(ctx, cfg, &imageRef{Image: pinned(container.Reference, container.Digest), Platform: container.Platform})
	if err == nil && image.Digest() != container.Digest {
		err = &fault.Error{
			Op: "run", Arg: container.Name, Blame: fault.User,
			Err:    fmt.Errorf("%s is not the image any more that this container is made from (%v)", container.Reference, container.Digest),
			Remedy: "bring that image back to its place; the changes fit no other",
		}
	}
	return image, err
}

// checkImage lets the reference through that the container was made with, and
// any with the same digest.
func (c *runCmd) checkImage(container *changes.Container) error {
	if c.Image == "" {
		return nil
	}
	ref, err := imagecache.ParseReference(c.Image)
	if err != nil {
		return err
	}
	name, err := fromAnywhere(ref)
	if err != nil || name == container.Reference || ref.Digest() == container.Digest {
		return err
	}
	return &fault.Error{
		Op: "run", Arg: container.Name, Blame: fault.User,
		Err:    errors.New("this container is made from " + container.Reference + ", not from " + ref.String()),
		Remedy: "leave the image out (berth run --name " + container.Name + " -- COMMAND), or take another name",
	}
}

// pinned adds the digest to a reference that can have one.
func pinned(reference string, d store.Digest) string {
	ref, err := imagecache.ParseReference(reference)
	if err != nil || !ref.Digest().IsZero() || ref.Kind() != imagecache.Registry && ref.Kind() != imagecache.OCILayout {
		return reference
	}
	return reference + "@" + d.String()
}
