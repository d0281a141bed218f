package main

import (
	"context"
	"errors"

	"github.com/berth-hpc/berth/cmd/internal/config"
	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/imagecache/store"
)

// A tier is which stores a command is about.
type tier struct {
	Cluster bool `help:"The store that the nodes of the cluster share (cluster.dir), not those on this machine."`
}

// places returns the stores of t, as far as they exist.
func (t tier) places(ctx context.Context, s *session, cfg *config.Config) ([]place, error) {
	if !t.Cluster {
		return s.places(cfg)
	}
	if cfg.Cluster.Dir == "" {
		return nil, &fault.Error{
			Op: "look into the cluster's store", Blame: fault.User, Err: errors.New("this site has none"),
			Remedy: "leave --cluster out; the admin makes one by cluster.dir in /etc/berth/berth.toml",
		}
	}
	site, err := clusterOf(cfg)
	if err != nil {
		return nil, err
	}
	site.Writer = site.Writer && s.user.uid == 0
	c, err := store.OpenCluster(ctx, site.Dir, site.ClusterOptions)
	if err != nil {
		return nil, err
	}
	if _, err := store.OpenExisting(site.Dir); err != nil {
		return nil, nil // nobody has pulled into it yet
	}
	return []place{{Store: c.Store, cluster: c}}, nil
}

// usedByNodes names the nodes that have im mounted in place.
func (p place) usedByNodes(im store.Image) ([]string, error) {
	if !p.cluster.Writer() {
		return nil, nil
	}
	return p.cluster.Nodes(im)
}

// mineToo refuses to change the cluster's store to all but root of writers.
func (p place) mineToo(op, image string) error {
	if p.cluster.Writer() {
		return nil
	}
	return &fault.Error{
		Op: op, Arg: image, Blame: fault.User, Err: errors.New("it is in the cluster's store, " + p.Root()),
		Remedy: "only root of a host in cluster.writers may change that one",
	}
}

// collectCluster is gc of the cluster's store.
func (c *gcCmd) collectCluster(ctx context.Context, p place, done *collected) error {
	if err := p.mineToo("collect", p.Root()); err != nil {
		return err
	}
	removed, err := p.cluster.Collect(ctx, store.Collection{DryRun: c.DryRun, UnusedFor: c.UnusedFor})
	done.add(removed)
	return err
}
