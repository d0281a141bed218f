package main

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/berth-hpc/berth/cmd/internal/config"
	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/imagecache/store"
	"github.com/berth-hpc/berth/launcher/join"
	"github.com/berth-hpc/berth/prolog"
)

// A place is a store at hand, and what this process may do there.
type place struct {
	*store.Store
	space *store.Space // nil in the node's store for all but root
	node  bool         // the node's store

	cluster *store.Cluster // instead of space, of the store that nodes share
}

// places returns the stores at hand, the user's own first. What does not exist,
// or the user may not read, is left out.
func (s *session) places(cfg *config.Config) ([]place, error) {
	var all []place
	if own, err := store.OpenExisting(cfg.Store.UserDir); err == nil && cfg.Store.UserDir != "" {
		space, err := ownSpace(cfg, own)
		if err != nil {
			return nil, err
		}
		all = append(all, place{Store: own, space: space})
	}
	images, err := store.OpenExisting(cfg.Store.Dir)
	if err != nil {
		return all, nil
	}
	node := place{Store: images, node: true}
	if s.user.uid == 0 {
		site, err := s.site()
		if err != nil {
			return nil, err
		}
		node.space = prolog.Space(site, images)
	}
	return append(all, node), nil
}

// ownSpace is what keeps the user's own store within its limits.
func ownSpace(cfg *config.Config, own *store.Store) (*store.Space, error) {
	limits, err := spaceLimits(cfg.Store.UserSpace, own.Root(), "store.user_")
	return &store.Space{Store: own, Limits: limits, Users: ownUsers{store.Processes{}}}, err
}

// ownUsers are those of a user's own images. Containers that only stand
// ready for a further run make way.
type ownUsers struct{ store.Processes }

// IfUnused implements store.Users.
func (p ownUsers) IfUnused(ctx context.Context, im store.Image, remove func() error) error {
	err := p.Processes.IfUnused(ctx, im, remove)
	var used *store.InUseError
	if !errors.As(err, &used) || join.EndAll() == 0 {
		return err
	}
	// An image's server ends a moment after the container.
	ctx, cancel := context.WithTimeout(ctx, serverEnds)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for errors.As(err, &used) {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return err
		}
		err = p.Processes.IfUnused(ctx, im, remove)
	}
	return err
}

// serverEnds is more than that takes.
const serverEnds = time.Second

// spaceLimits turns shares into bytes for the store at dir. keys is how the
// keys of its settings begin.
func spaceLimits(space config.Space, dir, keys string) (store.Limits, error) {
	disk := int64(0)
	if space.Quota.Percent > 0 || space.MinFree.Percent > 0 {
		var err error
		if disk, err = store.DiskSize(dir); err != nil {
			return store.Limits{}, err
		}
	}
	quota := space.Quota.Of(disk)
	return store.Limits{
		Quota: quota, LowWater: space.LowWater.Of(quota), MinFree: space.MinFree.Of(disk), Settings: keys,
	}, nil
}

// usedBy names who uses im, as far as this process may know.
func (p place) usedBy(ctx context.Context, im store.Image) ([]string, error) {
	switch {
	case p.cluster != nil:
		return p.usedByNodes(im)
	case p.space == nil:
		return nil, nil
	}
	return p.space.Users.Of(ctx, im)
}

// hides says that err is about an image of others: private ones in a store that
// is not this process's are for nobody's eyes but root's.
func (p place) hides(err error) bool {
	own := p.space != nil || p.cluster != nil && p.cluster.Writer()
	return !own && errors.Is(err, os.ErrPermission)
}

// mine refuses to change a store that is not this process's.
func (p place) mine(op, image string) error {
	switch {
	case p.cluster != nil:
		return p.mineToo(op, image)
	case p.space != nil:
		return nil
	}
	return &fault.Error{
		Op: op, Arg: image, Blame: fault.User, Err: errors.New("it is in the node's store, " + p.Root()),
		Remedy: "only root may change that one",
	}
}

// A match is an image that a user's word stands for, in one store.
type match struct {
	heldImage
	place place
	image store.Image
}

// matches returns all images at hand that name stands for. The beginning of a
// digest must be that of one only.
func (s *session) matches(ctx context.Context, cfg *config.Config, t tier, op, name string) ([]match, error) {
	is, err := matcher(name)
	if err != nil {
		return nil, err
	}
	places, err := t.places(ctx, s, cfg)
	if err != nil {
		return nil, err
	}
	var found []match
	digests := map[string]bool{}
	for _, p := range places {
		held, err := p.held(ctx)
		if err != nil {
			return nil, err
		}
		for _, h := range held {
			if is(h) {
				found = append(found, match{h, p, h.image})
				digests[h.Record.Digest.String()] = true
			}
		}
	}
	switch {
	case len(found) == 0:
		return nil, notAtHand(op, name)
	case len(digests) > 1 && isDigest(name):
		return nil, &fault.Error{
			Op: op, Arg: name, Blame: fault.User, Err: errors.New("several images begin so"),
			Remedy: "give more digits; berth images --json shows all of them",
		}
	}
	return found, nil
}

func notAtHand(op, name string) error {
	return &fault.Error{
		Op: op, Arg: name, Blame: fault.User, Err: errors.New("no such image at hand"),
		Remedy: "get it by: berth pull IMAGE; list what is at hand by: berth images",
	}
}

// isGone says that an image was removed while somebody looked at it.
func isGone(err error) bool {
	return errors.Is(err, store.ErrNotFound) || errors.Is(err, os.ErrNotExist)
}
