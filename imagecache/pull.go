package imagecache

import (
	"context"
	"errors"
	"os"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/imagecache/store"
)

// Pull makes sure that the image ref names is in s, a store of the caller's
// own, and returns it. If it is there already, that costs at most the one
// request of Resolve; with a digest in ref, none. Of any number of processes
// that pull one image at once, one transfers and converts it; the others wait.
// An image that makes room for another one meanwhile is pulled again.
func Pull(ctx context.Context, s *store.Store, ref Reference, opts FetchOptions) (im store.Image, err error) {
	for range removedTries {
		if im, err = pull(ctx, s, ref, opts); !errors.Is(err, store.ErrNotFound) {
			break
		}
	}
	return im, err
}

// removedTries is how often Pull finds or makes an image that others remove
// before it can look into it.
const removedTries = 3

func pull(ctx context.Context, s *store.Store, ref Reference, opts FetchOptions) (store.Image, error) {
	report := &reporter{f: opts.Progress}
	im, err := findPinned(s, ref)
	if err == nil {
		return held(im, ref, opts.Platform)
	}
	report.report(Progress{Phase: PhaseResolve})
	d, err := opts.resolve(ctx, ref)
	if err != nil {
		return store.Image{}, err
	}
	im, err = s.Get(d)
	if errors.Is(err, store.ErrNotFound) {
		im, err = pullLocked(ctx, s, ref, d, opts, report)
	}
	if err != nil {
		return store.Image{}, err
	}
	return held(im, ref, opts.Platform)
}

// held returns an image of the store if it is for platform. A reference that
// is no index leads to its image whatever the platform, and then another user
// of the store may have asked for that one.
func held(im store.Image, ref Reference, platform Platform) (store.Image, error) {
	m, err := im.Manifest()
	if err != nil {
		return store.Image{}, err
	}
	have := Platform{m.OS, m.Architecture, m.Variant}
	if want := orHost(platform); !want.matches(&v1.Platform{OS: have.OS, Architecture: have.Architecture, Variant: have.Variant}) {
		return store.Image{}, imageFault("pull", ref, wrongPlatform(want, []string{have.String()}))
	}
	note(im, ref)
	return im, nil
}

// note remembers that im was asked for now, and by which name. A full disk must
// not keep an image from running.
func note(im store.Image, ref Reference) {
	_ = im.Remember(ref.String())
	_ = im.Touch()
}

// resolve is Resolve, and keeps what it opened for Fetch: logins are asked for
// once, and large files are read once to learn their digest.
func (o *FetchOptions) resolve(ctx context.Context, ref Reference) (d store.Digest, err error) {
	if o.source, err = openSource(ctx, ref, o.Network); err == nil {
		d, err = resolve(ctx, o.source, orHost(o.Platform))
	}
	return d, imageFault("resolve", ref, err)
}

// findPinned looks for the image by the digest in ref, which costs nothing.
// That digest may be an index's; then it is not found, and Resolve follows it.
func findPinned(s *store.Store, ref Reference) (store.Image, error) {
	if ref.digest.IsZero() {
		return store.Image{}, store.ErrNotFound
	}
	return s.Get(ref.digest)
}

// pullLocked fetches and publishes d, unless whoever held the lock before did.
func pullLocked(ctx context.Context, s *store.Store, ref Reference, d store.Digest, opts FetchOptions, report *reporter) (im store.Image, err error) {
	lock, err := s.Lock(ctx, d, func() { report.report(Progress{Phase: PhaseWait}) })
	if err != nil {
		return store.Image{}, err
	}
	defer func() { err = errors.Join(err, lock.Release()) }()
	if im, err := s.Get(d); err == nil {
		return im, nil
	}
	dir, err := fetchInto(ctx, lock, ref, d, opts)
	if err != nil {
		return store.Image{}, err
	}
	report.report(Progress{Phase: PhasePublish})
	work, err := os.Open(dir)
	if err != nil {
		return store.Image{}, fault.Wrap("publish image", d.String(), fault.Site, "look at the store's folder", err)
	}
	defer work.Close()
	im, err = s.Publish(store.Work{Folder: work, Stager: os.Geteuid()}, d)
	if err == nil {
		// What we hold the lock of stays. The image is there: it matters less
		// whether the store now takes too much.
		_, _ = opts.Space.Trim(ctx)
	}
	return im, err
}
