package prolog

import (
	"context"
	"errors"

	"github.com/sirupsen/logrus"

	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/imagecache"
	"github.com/berth-hpc/berth/imagecache/store"
	"github.com/berth-hpc/berth/launcher"
	"github.com/berth-hpc/berth/policy"
	"github.com/berth-hpc/berth/prolog/jobstate"
)

// A Warming is an image that is to be in the node's store before a job asks for
// it. Nobody's login is used: what a registry does not give to everybody stays
// where it is.
type Warming struct {
	Image string
	// Digest is that of the manifest; zero asks the registry.
	Digest store.Digest
	// Platform is which one is meant where the registry is asked; "" is this
	// machine's.
	Platform string
	// Rate bounds the transfer, in bytes per second; zero does not.
	Rate int64
	// Keep keeps the image; nil does not.
	Keep *store.Keep
	// For is the job that waits for it, whose user the site's policy judges:
	// the image's name is that user's word. Zero is the administrator's own
	// list, to which no rule applies; whether a job may use it, is decided
	// when it comes.
	For jobstate.Request
	// Progress may be nil.
	Progress imagecache.ProgressFunc
}

// WarmHolder is on whose behalf images are kept that Warm was told to keep.
const WarmHolder = "warm"

// Warmed is what became of a Warming.
type Warmed struct {
	Image store.Image
	// Hit says that it was at hand.
	Hit bool
}

func (g Warming) worker(log logrus.FieldLogger, cfg Config) *worker {
	w := &worker{
		cfg: cfg, log: log.WithField("image", fault.Clean(g.Image)), req: g.For,
		anonymous: true, warming: true, platform: g.Platform, rate: g.Rate, watch: g.Progress,
	}
	w.req.Image = g.Image
	if !g.Digest.IsZero() {
		w.req.Digest = g.Digest.String()
	}
	if g.For.Job == "" {
		w.cfg.Policy = policy.Policy{}
	}
	return w
}

// Digested has the account ask the registry which digest g's image has.
func Digested(ctx context.Context, log logrus.FieldLogger, cfg Config, g Warming) (store.Digest, error) {
	w := g.worker(log, cfg)
	if err := checkReference(g.Image); err != nil {
		return store.Digest{}, fault.Wrap("read the image's name", "", fault.User, "correct the list", err)
	}
	if err := w.permit(ctx); err != nil {
		return store.Digest{}, err
	}
	return w.resolve(ctx)
}

// Warm gets g's image, whose digest is known, into the node's store as a job's
// preparation does: the account for network and layers, a shared store first.
// It neither leases nor mounts it. Root runs it.
func Warm(ctx context.Context, log logrus.FieldLogger, cfg Config, g Warming) (Warmed, error) {
	if err := checkReference(g.Image); err != nil || g.Digest.IsZero() {
		return Warmed{}, fault.Wrap("read the image's name", "", fault.User, "correct the list", errors.Join(err, errors.New("a name and a digest are needed")))
	}
	ctx, cancel := context.WithTimeoutCause(ctx, cfg.PrepareDeadline, errDeadline(cfg.PrepareDeadline))
	defer cancel()
	done, err := g.worker(log, cfg).warm(ctx, g)
	if cause := context.Cause(ctx); err != nil && errors.Is(cause, context.DeadlineExceeded) {
		err = cause
	}
	return done, err
}

func (w *worker) warm(ctx context.Context, g Warming) (done Warmed, err error) {
	if err := w.permit(ctx); err != nil {
		return done, err
	}
	// The run folder's own mount comes before anything is written there.
	mounts, err := launcher.OpenMounts(ctx, w.cfg.RunDir)
	if err != nil {
		return done, err
	}
	mounts.Close()
	st, err := store.Open(w.cfg.StoreDir)
	if err != nil {
		return done, err
	}
	// Before it is there, so that it does not make room at once.
	if g.For.Job == "" {
		if err := w.keep(ctx, st, g); err != nil {
			return done, err
		}
	}
	for range removedTries {
		if done, err = w.atHandOrPulled(ctx, st, g.Digest); !errors.Is(err, store.ErrNotFound) {
			break
		}
	}
	if err == nil && isPublic(done.Image) {
		_ = done.Image.Touch()
		err = w.keep(ctx, st, g)
	}
	return done, err
}

// isPublic says whether im is everybody's. What is not, is nobody's business
// here: it gets no longer a life by the word of somebody who may not have it.
func isPublic(im store.Image) bool {
	a, err := im.Access()
	return err == nil && a.Public
}

func (w *worker) atHandOrPulled(ctx context.Context, st *store.Store, d store.Digest) (Warmed, error) {
	im, err := st.Get(d)
	if err == nil {
		return Warmed{Image: im, Hit: true}, nil
	}
	if !errors.Is(err, store.ErrNotFound) {
		return Warmed{}, err
	}
	if err := w.permitPull(ctx, d); err != nil {
		return Warmed{}, err
	}
	inPlace := w.cfg.Cluster.Mount && w.clusterHas(ctx, d)
	if im, err = w.pull(ctx, st, d); err != nil {
		return Warmed{}, err
	}
	return Warmed{Image: im, Hit: inPlace}, nil
}

// keep keeps g's image in the node's store, and where this host may, in the
// cluster's.
func (w *worker) keep(ctx context.Context, st *store.Store, g Warming) error {
	if g.Keep == nil {
		return nil
	}
	if err := st.Keep(g.Digest, WarmHolder, *g.Keep); err != nil {
		return err
	}
	if w.cfg.Cluster.Dir == "" {
		return nil
	}
	c, err := w.cfg.Cluster.open(ctx)
	if err != nil || !c.Writer() {
		return nil // fromCluster says what is wrong with it
	}
	if err := c.Keep(g.Digest, WarmHolder, *g.Keep); err != nil {
		w.log.WithError(err).Warn("the image is not kept in the cluster's store")
	}
	return nil
}
