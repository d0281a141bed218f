package prolog

import (
	"context"
	"errors"
	"slices"
	"time"

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
	w := g.worker(log, cfg)
	done, err := w.warm(ctx, g)
	cfg.countWarm(w.pulled)
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
		if done, err = w.unhurried(ctx, st, g.Digest); !errors.Is(err, store.ErrNotFound) {
			break
		}
	}
	if err == nil && isPublic(done.Image) {
		_ = done.Image.Touch()
		if g.For.Job != "" {
			err = w.keep(ctx, st, g)
		}
	}
	return done, err
}

// isPublic says whether im is everybody's. What is not, is nobody's business
// here: it gets no longer a life by the word of somebody who may not have it.
func isPublic(im store.Image) bool {
	a, err := im.Access()
	return err == nil && a.Public
}

// errWanted is the cause when a job of this node waits for what is warmed.
var errWanted = errors.New("a job waits for the image")

// unhurried is atHandOrPulled at the rate that was asked for, until a job wants
// the image: that one must not wait for so slow a transfer. It ends then, and
// what follows is the job's own pull, or one as fast as that.
func (w *worker) unhurried(ctx context.Context, st *store.Store, d store.Digest) (Warmed, error) {
	if w.rate == 0 {
		return w.inTime(ctx, st, d)
	}
	slow, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		tick := time.NewTicker(wantedEvery)
		defer tick.Stop()
		for !w.wanted(d) {
			select {
			case <-tick.C:
			case <-slow.Done():
				return
			}
		}
		cancel(errWanted)
	}()
	done, err := w.atHandOrPulled(slow, st, d)
	if err == nil || ctx.Err() != nil || !errors.Is(context.Cause(slow), errWanted) {
		return done, err
	}
	w.log.Info("a job waits for it: no bound on the rate any more")
	w.rate = 0
	return w.inTime(ctx, st, d)
}

// inTime is atHandOrPulled with the deadline of a job's preparation. What is
// slow on purpose has none: registries that stall or crawl are noticed anyhow.
func (w *worker) inTime(ctx context.Context, st *store.Store, d store.Digest) (Warmed, error) {
	limit := w.cfg.PrepareDeadline
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	done, err := w.atHandOrPulled(ctx, st, d)
	if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		err = errDeadline(limit)
	}
	return done, err
}

// wantedEvery is how often it is looked whether a job waits.
const wantedEvery = time.Second

// wanted says whether a job's preparation needs d, or something of its
// repository whose digest it does not tell.
func (w *worker) wanted(d store.Digest) bool {
	all, err := Status(w.cfg)
	if err != nil {
		return false
	}
	mine, _ := w.origin()
	return slices.ContainsFunc(all, func(p Preparation) bool {
		if p.State != nil || !p.Busy {
			return false
		}
		theirs, ok := (&worker{req: p.Request}).origin()
		return p.Digest == d.String() || ok && theirs == mine
	})
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
