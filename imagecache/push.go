package imagecache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/imagecache/store"
)

// PhasePush is layers on their way to a registry.
const PhasePush Phase = "push"

// PushOptions say how Push works. The zero value is usable.
type PushOptions struct {
	Network Network
	// Parallel is how many layers are sent at once; 0 means 3.
	Parallel int
	Progress ProgressFunc // may be nil
}

// Push writes im to the registry that to names, under to's tag, and returns
// the digest that it has there. What the registry has, in this repository or,
// for an Original of the same registry, in the one that it came from, is not
// sent; other layers of an Original go from its registry to the other without
// the disk. The manifest comes last: until then nothing is seen under the tag.
//
// Requests go through the same guarded transport as those of pulls, with the
// host's CA, proxy and time limits, but never to mirrors.
func Push(ctx context.Context, im v1.Image, to Reference, opts PushOptions) (store.Digest, error) {
	p, err := newPusher(to, opts)
	if err == nil {
		err = p.push(ctx, func(options []remote.Option) error {
			return remote.Write(p.name, p.mountable(im), options...)
		})
	}
	if err != nil {
		return store.Digest{}, pushFault(ctx, to, err)
	}
	h, err := im.Digest()
	if err != nil {
		return store.Digest{}, err
	}
	return store.ParseDigest(h.String())
}

// PushAll copies all that from names to the registry to: of an index every
// platform, so that it keeps its digest.
func PushAll(ctx context.Context, from, to Reference, opts PushOptions) (store.Digest, error) {
	index, err := openIndex(ctx, from, opts.Network)
	if err != nil {
		return store.Digest{}, imageFault("open", from, err)
	}
	p, err := newPusher(to, opts)
	if err == nil {
		index.wrap = p.mountable
		err = p.push(ctx, func(options []remote.Option) error { return remote.WriteIndex(p.name, index, options...) })
	}
	return digestOf(index.raw), pushFault(ctx, to, err)
}

// CheckPush asks the registry that to names whether it would take an image from
// the user, by beginning an upload. It returns what Push would.
func CheckPush(ctx context.Context, to Reference, opts PushOptions) error {
	p, err := newPusher(to, opts)
	if err != nil {
		return pushFault(ctx, to, err)
	}
	keys := &pushKeychain{Keychain: opts.Network.Credentials, user: to.user}
	err = remote.CheckPushPermission(p.name, keys, &boundedBy{ctx, &uploadGuard{p.endpoint.base}})
	return pushFault(ctx, to, p.explain(keys, err))
}

// boundedBy ends requests with a context that the library has no place for.
type boundedBy struct {
	ctx  context.Context //nolint:containedctx // lives as long as one call of CheckPush
	base http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (b *boundedBy) RoundTrip(req *http.Request) (*http.Response, error) {
	return b.base.RoundTrip(req.Clone(b.ctx))
}

// CheckPushTarget says what is wrong with a reference to push to.
func CheckPushTarget(to Reference) error {
	cause := ""
	switch {
	case to.kind != Registry:
		cause = "images are pushed to registries only"
	case !to.digest.IsZero():
		cause = "a digest is what a push gives, not where it goes"
	default:
		return nil
	}
	return &fault.Error{
		Op: "push to", Arg: to.String(), Blame: fault.User, Err: errors.New(cause),
		Remedy: "write [REGISTRY/]NAME[:TAG]; for files use berth save",
	}
}

// A pusher writes to one repository.
type pusher struct {
	to       Reference
	name     name.Reference
	endpoint *endpoint
	opts     PushOptions
}

func newPusher(to Reference, opts PushOptions) (*pusher, error) {
	if err := CheckPushTarget(to); err != nil {
		return nil, err
	}
	e, err := newEndpoint(to.registry, to.repository, opts.Network.Hosts[to.registry], opts.Network)
	if err != nil {
		return nil, err
	}
	if opts.Parallel <= 0 {
		opts.Parallel = defaultParallel
	}
	return &pusher{to: to, name: e.repo.Tag(to.tag), endpoint: e, opts: opts}, nil
}

// push calls write with the options for the registry.
func (p *pusher) push(ctx context.Context, write func([]remote.Option) error) error {
	updates := make(chan v1.Update, 16)
	var watching sync.WaitGroup
	watching.Go(func() { p.watch(updates) })
	tries := p.opts.Network.retries()
	keys := &pushKeychain{Keychain: p.opts.Network.Credentials, user: p.to.user}
	err := write([]remote.Option{
		remote.WithContext(ctx), remote.WithTransport(&uploadGuard{p.endpoint.base}), remote.WithAuthFromKeychain(keys),
		remote.WithJobs(p.opts.Parallel), remote.WithProgress(updates), remote.WithUserAgent(userAgent),
		remote.WithRetryBackoff(remote.Backoff{Duration: tries.wait, Factor: 2, Jitter: 0.5, Steps: max(tries.max, 0) + 1, Cap: maxRetryWait}),
	})
	watching.Wait()
	return p.explain(keys, err)
}

// explain turns what the library says into errors as pulls have them.
func (p *pusher) explain(keys *pushKeychain, err error) error {
	if err == nil {
		return nil
	}
	err = p.endpoint.requestError(err)
	var status *statusError
	if errors.As(err, &status) {
		status.login, status.anonymous = keys.words()
	}
	return err
}

// watch reports the bytes sent, until the library closes the channel. What came
// with the end of a layer it does not count.
func (p *pusher) watch(updates <-chan v1.Update) {
	report := &reporter{f: p.opts.Progress}
	var shown time.Time
	var total int64
	failed := false
	for u := range updates {
		failed = failed || u.Error != nil
		total = max(total, u.Total)
		if now := time.Now(); u.Error == nil && now.Sub(shown) >= reportEvery {
			shown = now
			report.report(Progress{Phase: PhasePush, Layer: 1, Layers: 1, Done: u.Complete, Total: u.Total})
		}
	}
	if !failed && total > 0 {
		report.report(Progress{Phase: PhasePush, Layer: 1, Layers: 1, Done: total, Total: total})
	}
}

// mountable lets the registry take layers from the repository that an Original
// came from, where that is its own.
func (p *pusher) mountable(im v1.Image) v1.Image {
	o, ok := originalOf(im)
	if !ok || o.ref.kind != Registry || o.ref.registry != p.to.registry {
		return im
	}
	from, err := name.NewRegistry(p.endpoint.repo.RegistryStr())
	if err != nil {
		return im
	}
	return &mountableImage{im, o, from.Repo(o.ref.repository).Tag(defaultTag)}
}

// originalOf finds the Original that an image is, or was made from.
func originalOf(im v1.Image) (*Original, bool) {
	switch im := im.(type) {
	case *Original:
		return im, true
	case *ChangedImage:
		return originalOf(im.base)
	}
	return nil, false
}

// A mountableImage says of its original's layers where they are.
type mountableImage struct {
	v1.Image
	original *Original
	from     name.Reference
}

// Layers implements v1.Image.
func (m *mountableImage) Layers() ([]v1.Layer, error) {
	layers, err := m.Image.Layers()
	if err != nil {
		return nil, err
	}
	for i, l := range layers {
		h, err := l.Digest()
		if err != nil {
			return nil, err
		}
		if _, err := m.original.LayerByDigest(h); err == nil {
			layers[i] = &remote.MountableLayer{Layer: l, Reference: m.from}
		}
	}
	return layers, nil
}

// pushKeychain finds the login of the user whom the reference names, and
// remembers which one was used.
type pushKeychain struct {
	authn.Keychain
	user string

	mu   sync.Mutex
	used authn.Authenticator // nil for nobody in particular
}

// Resolve implements authn.Keychain.
func (k *pushKeychain) Resolve(r authn.Resource) (authn.Authenticator, error) {
	return k.ResolveContext(context.Background(), r)
}

// ResolveContext implements authn.ContextKeychain.
func (k *pushKeychain) ResolveContext(ctx context.Context, r authn.Resource) (authn.Authenticator, error) {
	if k.Keychain == nil {
		return authn.Anonymous, nil
	}
	if repo, ok := r.(name.Repository); ok {
		r = wanted{repo, k.user}
	}
	auth, err := authn.Resolve(ctx, k.Keychain, r)
	if err != nil {
		return nil, fmt.Errorf("look up your login: %w", err)
	}
	if auth != authn.Anonymous {
		k.mu.Lock()
		defer k.mu.Unlock()
		k.used = auth
	}
	return auth, nil
}

// words says in words whose login was used, and whether it was nobody's.
func (k *pushKeychain) words() (login string, anonymous bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return loginWords(k.used), k.used == nil
}

// uploadGuard ends uploads that the host stops taking. Waiting for the layer
// itself does not count, as it may come from a slow registry.
type uploadGuard struct{ *guard }

// RoundTrip implements http.RoundTripper.
func (u *uploadGuard) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Body == nil || req.Body == http.NoBody {
		return u.guard.RoundTrip(req)
	}
	ctx, cancel := context.WithCancelCause(req.Context())
	body := &uploadBody{ReadCloser: req.Body, limit: u.stall, timer: time.AfterFunc(u.stall, func() { cancel(errStalled) })}
	req = req.Clone(ctx)
	req.Body = body
	resp, err := u.guard.RoundTrip(req)
	body.timer.Stop()
	if err != nil && errors.Is(context.Cause(ctx), errStalled) {
		err = fmt.Errorf("%w: the registry took nothing for %v", errStalled, u.stall)
	}
	return resp, err
}

// uploadBody runs the timer while nobody reads.
type uploadBody struct {
	io.ReadCloser
	limit time.Duration
	timer *time.Timer
}

// Read implements io.Reader.
func (b *uploadBody) Read(p []byte) (int, error) {
	b.timer.Stop()
	n, err := b.ReadCloser.Read(p)
	if err == nil {
		b.timer.Reset(b.limit)
	}
	return n, err
}

// pushFault says who can mend a push that failed. What is at fault with the
// image that is pushed has been said by then.
func pushFault(ctx context.Context, to Reference, err error) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	var f *fault.Error
	if errors.As(err, &f) {
		return &fault.Error{Op: "push to", Arg: to.String(), Blame: f.Blame, Remedy: fault.Remedy(err), Err: err}
	}
	blame, remedy := diagnose(to, err)
	var status *statusError
	if errors.As(err, &status) {
		blame, remedy = diagnosePush(to, status, blame, remedy)
	}
	return &fault.Error{Op: "push to", Arg: to.String(), Blame: blame, Remedy: remedy, Err: err}
}

// diagnosePush knows what answers mean to somebody who writes.
func diagnosePush(to Reference, e *statusError, blame fault.Blame, remedy string) (fault.Blame, string) {
	switch {
	case (e.status == http.StatusUnauthorized || e.status == http.StatusForbidden) && e.anonymous:
		return fault.User, fmt.Sprintf("log in as somebody who may write to %s: berth login %s", to.repository, to.registry)
	case e.status == http.StatusUnauthorized, e.status == http.StatusForbidden:
		return fault.User, fmt.Sprintf("this login may not write to %s, or the repository has to be made there first; try another name or login", to.repository)
	case e.status == http.StatusNotFound:
		return fault.User, fmt.Sprintf("check the spelling of %s; some registries want the repository to be made there first", to.repository)
	case e.status == http.StatusRequestEntityTooLarge:
		return fault.Site, fmt.Sprintf("%s, or a proxy before it, takes no layer of this size; ask its admin to allow larger ones, or make the layer smaller", to.registry)
	case e.status == http.StatusMethodNotAllowed:
		return fault.Site, to.registry + " takes no images, it may be a mirror; push to another registry"
	case e.status >= 500:
		return fault.Site, to.registry + " has trouble of its own; try again later"
	}
	return blame, remedy
}
