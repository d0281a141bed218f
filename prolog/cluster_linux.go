package prolog

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/berth-hpc/berth/imagecache"
	"github.com/berth-hpc/berth/imagecache/store"
	"github.com/berth-hpc/berth/prolog/jobstate"
)

// ClusterConfig says which store this node shares with others; see
// store.Cluster.
type ClusterConfig struct {
	Dir string // "" for none
	// Mount uses images where they are, instead of copying them into the
	// node's store.
	Mount bool
	store.ClusterOptions
}

func (c ClusterConfig) open(ctx context.Context) (*store.Cluster, error) {
	return store.OpenCluster(ctx, c.Dir, c.ClusterOptions)
}

// fromCluster gets d by way of the cluster's store, where it is pulled first
// if need be: copied into st, whose lock the caller holds, or as it is there,
// to be mounted in place. Whatever is wrong with that store is logged, and the
// image is store.ErrNotFound: no job fails because of it. Another error is why
// the image cannot be pulled.
func (w *worker) fromCluster(ctx context.Context, st *store.Store, lock *store.Lock, d store.Digest) (store.Image, error) {
	none := store.Image{}
	if w.cfg.Cluster.Dir == "" || w.withoutCluster {
		return none, store.ErrNotFound
	}
	c, err := w.cfg.Cluster.open(ctx)
	if err != nil {
		return none, w.goOnWithout(err)
	}
	im, err := w.takeFrom(ctx, c, st, lock, d)
	if errors.Is(err, store.ErrDamaged) && c.Writer() {
		// Whoever finds it damaged has it pulled again for all, once.
		w.log.WithError(err).Error("an image of the cluster's store is damaged: it is pulled again")
		im, err = w.takeFrom(ctx, c, st, lock, d)
	}
	switch {
	case err == nil || ctx.Err() != nil:
		return im, err
	case errors.Is(err, store.ErrUnusable), errors.Is(err, store.ErrDamaged):
		return none, w.goOnWithout(err)
	}
	return none, err
}

// clusterHas says whether the cluster's store has d.
func (w *worker) clusterHas(ctx context.Context, d store.Digest) bool {
	return w.inCluster(ctx, d, func(*store.Source) bool { return true })
}

// clusterGrants is atHand for the cluster's store.
func (w *worker) clusterGrants(ctx context.Context, d store.Digest) bool {
	return w.inCluster(ctx, d, func(src *store.Source) bool {
		a, err := src.Access()
		return err == nil && w.mayUseNow(d, a)
	})
}

// inCluster asks is about d in the cluster's store, if it is there.
func (w *worker) inCluster(ctx context.Context, d store.Digest, is func(*store.Source) bool) bool {
	if w.cfg.Cluster.Dir == "" {
		return false
	}
	c, err := w.cfg.Cluster.open(ctx)
	if err != nil {
		return false // fromCluster says so
	}
	src, err := c.Open(ctx, d)
	if err != nil {
		return false
	}
	defer src.Close()
	return is(src)
}

// goOnWithout has the image pulled by this node, for itself.
func (w *worker) goOnWithout(err error) error {
	w.withoutCluster = true
	w.log.WithError(err).Warn("going on without the cluster's store")
	return store.ErrNotFound
}

// takeFrom sets a damaged image aside before it returns store.ErrDamaged.
func (w *worker) takeFrom(ctx context.Context, c *store.Cluster, st *store.Store, lock *store.Lock, d store.Digest) (store.Image, error) {
	src, err := c.Ensure(ctx, d, w.waitFor, func(ctx context.Context, held *store.Lock) error {
		return w.fill(ctx, c, held, d)
	})
	if err != nil {
		return store.Image{}, errors.Join(err, setAside(ctx, c, d, err))
	}
	defer src.Close()
	if ok, err := w.mayUseSource(ctx, c, src); err != nil || !ok {
		w.withoutCluster = true // the node pulls for itself
		return store.Image{}, errors.Join(err, notRecorded(err))
	}
	src.Touch(c)
	if w.cfg.Cluster.Mount && w.warming && c.Writer() {
		return src.Image(), nil
	}
	if w.cfg.Cluster.Mount && w.mayLease(ctx, c, d) {
		w.endOldLeases(ctx, c)
		w.inPlace = c
		return src.Image(), nil
	}
	im, err := w.copy(ctx, src, st, lock)
	return im, errors.Join(err, setAside(ctx, c, d, err))
}

// mayUseSource is mayUse for an image of the cluster's store, whose rights hold
// for all nodes; grants are each node's own. A node that may not write there
// cannot open an image that has become public: each of its jobs asks then.
func (w *worker) mayUseSource(ctx context.Context, c *store.Cluster, src *store.Source) (bool, error) {
	a, err := src.Access()
	if err != nil {
		return false, err
	}
	return w.mayUse(ctx, src.Image().Digest(), a, func(o store.Origin) error {
		if err := src.OpenUp(ctx, c, o, w.canonical()); err != nil {
			w.log.WithError(err).Warn("open the cluster's image to everybody") // the next job asks again
		}
		return nil
	})
}

// notRecorded has an image pulled by the node where err says nothing else.
func notRecorded(err error) error {
	if err != nil {
		return nil
	}
	return store.ErrNotFound
}

// mayLease says whether this node can use d in place.
func (w *worker) mayLease(ctx context.Context, c *store.Cluster, d store.Digest) bool {
	if err := c.Lease(ctx, d); err != nil {
		w.log.WithError(err).Warn("no lease in the cluster's store: the image is copied")
		return false
	}
	return true
}

// setAside makes room for a good image if err says that d is damaged there.
func setAside(ctx context.Context, c *store.Cluster, d store.Digest, err error) error {
	if !errors.Is(err, store.ErrDamaged) {
		return nil
	}
	return c.SetAside(ctx, d)
}

// copy puts src's image into the node's store, whose lock the caller holds.
func (w *worker) copy(ctx context.Context, src *store.Source, st *store.Store, lock *store.Lock) (store.Image, error) {
	if err := w.reserveCopy(ctx, src, st, lock); err != nil {
		return store.Image{}, err
	}
	dir, err := lock.TempDir(os.Geteuid(), os.Getegid())
	if err != nil {
		return store.Image{}, err
	}
	work, err := openFolder(dir)
	if err != nil {
		return store.Image{}, err
	}
	defer work.Close()
	err = src.CopyTo(ctx, dir, w.sayCopied)
	if err != nil {
		return store.Image{}, err
	}
	w.say(imagecache.Progress{Phase: imagecache.PhasePublish})
	a, err := src.Access()
	if err != nil {
		return store.Image{}, err
	}
	im, err := st.Publish(store.Work{Folder: work, Stager: os.Geteuid(), Private: !a.Public}, src.Image().Digest())
	if err == nil {
		w.noteGood(im, lastSquashfsError())
		w.trim(ctx, st)
	}
	return im, err
}

// fill pulls d into the cluster's store, whose lock is held. The other nodes
// hear what this one's tasks do.
func (w *worker) fill(ctx context.Context, c *store.Cluster, held *store.Lock, d store.Digest) error {
	w.shout = held.SetProgress
	defer func() { w.shout = nil }()
	_, err := w.fetchAndPublish(ctx, c.Store, held, d)
	if err != nil && (isRefusal(err) || !w.login.IsZero()) {
		return &store.PersonalError{Err: err}
	}
	return blameStore(err)
}

// waitFor tells the tasks whom they wait for.
func (w *worker) waitFor(host, line string) {
	if line == "" {
		line = "preparing it"
	}
	w.tell(fmt.Sprintf("waiting for %s: %s is %s", w.req.Image, host, line))
}

func (w *worker) sayCopied(done, total int64) {
	if time.Since(w.said) < time.Second && done < total {
		return
	}
	w.said = time.Now()
	w.tell(fmt.Sprintf("copying %s from the cluster's store: %s", w.req.Image, imagecache.Amount{Done: done, Total: total}))
}

func (w *worker) tell(line string) {
	if w.folder == (jobstate.Folder{}) {
		return // for no job: see Repair
	}
	if err := w.folder.SetProgress(line); err != nil {
		w.log.WithError(err).Debug("progress")
	}
}

// blameStore makes err store.ErrUnusable when the cluster's file system, not
// the registry, is why the image could not be pulled into it.
func blameStore(err error) error {
	var disk *diskError
	if errors.As(err, &disk) || imagecache.IsDisk(err) {
		return fmt.Errorf("%w: %w", store.ErrUnusable, err)
	}
	return err
}
