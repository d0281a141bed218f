package prolog

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/imagecache"
	"github.com/berth-hpc/berth/imagecache/store"
)

// Who may use an image that a store has: everybody, where it is public; else
// whom the registry lets at it, in a repository from which the store itself
// pulled every blob. Whoever serves no more than the manifest of somebody's
// image, under any name, shows nothing by that. A repository that the store
// does not know is pulled from as if the image were missing. The user sees
// what the registry answers, the same whether the store has the image or not.

// mayUse says whether the job's user may use image d, to which a gives access,
// and asks the registry if need be. Neither yes nor an error means that d has
// to be pulled from where the job names it. open is told of a repository that
// has become public.
func (w *worker) mayUse(ctx context.Context, d store.Digest, a store.Access, open func(store.Origin) error) (bool, error) {
	if w.mayUseNow(d, a) {
		return true, nil
	}
	o, ok := w.origin()
	if !ok || !a.Has(o.Registry, o.Repository) {
		return false, nil
	}
	public, err := w.confirm(ctx, d)
	switch {
	case err == nil && public:
		o.Public = true
		err = open(o)
	case err == nil:
		err = w.cfg.give(w.grant(o, d))
	default:
		err = w.unconfirmed(o, d, err)
	}
	if err == nil {
		w.entitled = d
	}
	return err == nil, err
}

// mayUseNow is mayUse as far as it needs no registry.
func (w *worker) mayUseNow(d store.Digest, a store.Access) bool {
	ok := w.entitled == d || a.Public || w.req.UID == 0
	if o, named := w.origin(); !ok && named && a.Has(o.Registry, o.Repository) {
		_, ok = w.cfg.granted(w.grant(o, d))
	}
	if ok {
		w.entitled = d
	}
	return ok
}

// mayUseImage is mayUse for an image of the node's store.
func (w *worker) mayUseImage(ctx context.Context, im store.Image) (bool, error) {
	a, err := im.Access()
	if err != nil {
		return false, err
	}
	return w.mayUse(ctx, im.Digest(), a, func(o store.Origin) error { return im.AddOrigin(o, w.canonical()) })
}

// unconfirmed is what becomes of a confirmation that failed by err: a registry
// that refuses ends the grant; one that does not answer leaves it, where the
// site wants that.
func (w *worker) unconfirmed(o store.Origin, d store.Digest, err error) error {
	g := w.grant(o, d)
	if isRefusal(err) {
		return errors.Join(err, w.cfg.takeBack(g))
	}
	if given, _ := w.cfg.granted(g); given && w.cfg.GrantStaleOK && fault.Of(err) == fault.Site {
		w.log.WithError(err).Warn("the registry does not answer: an expired grant counts")
		return nil
	}
	return err
}

// confirm has the account ask for d's manifest, with the user's login if need
// be, and says whether everybody gets it.
func (w *worker) confirm(ctx context.Context, d store.Digest) (public bool, err error) {
	limited, cancel := context.WithTimeout(ctx, confirmLimit)
	defer cancel()
	err = w.asking(limited, func() error {
		f := w.fetcher("/")
		err := f.run(limited, FetchRequest{Image: w.req.Image, Digest: d, Confirm: true})
		public = f.public
		return err
	})
	if err != nil && limited.Err() != nil && ctx.Err() == nil {
		err = &fault.Error{
			Op: "pull", Arg: w.canonical(), Blame: fault.Site, Remedy: "try again later",
			Err: fmt.Errorf("the registry did not answer within %v whether you may", confirmLimit),
		}
	}
	return public, err
}

// confirmLimit bounds that, with all that is tried again.
const confirmLimit = 30 * time.Second

// origin is the repository that the job names; false for what is in none.
func (w *worker) origin() (store.Origin, bool) {
	ref, err := imagecache.ParseReference(w.req.Image)
	if err != nil || ref.Kind() != imagecache.Registry {
		return store.Origin{}, false
	}
	return store.Origin{Registry: ref.Host(), Repository: ref.Repository()}, true
}

// canonical is the reference as records have it.
func (w *worker) canonical() string {
	ref, err := imagecache.ParseReference(w.req.Image)
	if err != nil {
		return ""
	}
	return ref.String()
}

func (w *worker) grant(o store.Origin, d store.Digest) grant {
	return grant{UID: w.req.UID, Registry: o.Registry, Repository: o.Repository, Digest: d}
}

// entitle entitles the job's user to d, every blob of which was pulled for them.
func (w *worker) entitle(d store.Digest, public bool) error {
	w.entitled = d
	o, ok := w.origin()
	if public || !ok || w.req.UID == 0 {
		return nil
	}
	return w.cfg.give(w.grant(o, d))
}

// mustBeEntitled guards what hands an image to the job.
func (w *worker) mustBeEntitled(d store.Digest) error {
	if w.entitled == d && !d.IsZero() {
		return nil
	}
	return &fault.Error{
		Op: "use image", Arg: w.req.Image, Blame: fault.Bug, Err: errors.New("nobody looked whether the user may"),
		Remedy: "report this as a bug",
	}
}
