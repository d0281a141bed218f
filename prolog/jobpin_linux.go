package prolog

import (
	"context"
	"errors"

	"github.com/berth-hpc/berth/imagecache/store"
)

// jobDigest says what the job's tag means: what another node of the job said
// in the cluster's store, else what the registry says now, which from then on
// holds for the others. Without such a store, or where it fails, each node
// asks for itself, and pinned stays false.
func (w *worker) jobDigest(ctx context.Context) (store.Digest, error) {
	c := w.pins(ctx)
	if c == nil {
		return w.resolve(ctx)
	}
	name := string(w.req.Job) + "." + w.req.Key()
	d, err := c.Pinned(ctx, name)
	if errors.Is(err, store.ErrNotFound) {
		if d, err = w.resolve(ctx); err != nil {
			return d, err
		}
		return w.pin(ctx, c, name, d)
	}
	if err != nil {
		w.log.WithError(err).Warn("the job is not pinned in the cluster's store")
		return w.resolve(ctx)
	}
	w.pinned = true
	return d, nil
}

func (w *worker) pin(ctx context.Context, c *store.Cluster, name string, d store.Digest) (store.Digest, error) {
	first, err := c.Pin(ctx, name, d)
	if err == nil {
		w.pinned = true
		return first, nil
	}
	if !errors.Is(err, store.ErrNotFound) {
		w.log.WithError(err).Warn("the job is not pinned in the cluster's store")
	}
	return d, nil
}

// pins is the cluster's store, or nil.
func (w *worker) pins(ctx context.Context) *store.Cluster {
	if w.cfg.Cluster.Dir == "" {
		return nil
	}
	c, err := w.cfg.Cluster.open(ctx)
	if err != nil {
		w.log.WithError(err).Warn("the job is not pinned in the cluster's store")
		return nil
	}
	return c
}
