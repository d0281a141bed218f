package imagecache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/berth-hpc/berth/imagecache/store"
)

// manifestTypes is what we say we understand. Docker's schema 1 is in it, so
// that the message about such an image can name the reason.
var manifestTypes = strings.Join([]string{
	string(types.OCIManifestSchema1), string(types.OCIImageIndex),
	string(types.DockerManifestSchema2), string(types.DockerManifestList),
	string(types.DockerManifestSchema1Signed),
}, ", ")

// registrySource is an image in a registry, or in a mirror of it.
type registrySource struct {
	ref       Reference
	endpoints []*endpoint // mirrors first, the registry itself last
	served    *endpoint   // the one that had the manifest
	retries   retries
	limit     int64 // of a manifest, in bytes
}

func newRegistrySource(ref Reference, net Network) (*registrySource, error) {
	src := &registrySource{ref: ref, retries: net.retries(), limit: orElse(net.MaxManifest, maxManifest)}
	own := net.Hosts[ref.registry]
	e, err := newEndpoint(ref.registry, ref.repository, own, net)
	if err != nil {
		return nil, err
	}
	e.user = ref.user
	for _, mirror := range own.Mirrors {
		m, err := newMirror(mirror, e, net)
		if err != nil {
			return nil, fmt.Errorf("use mirror %s: %w", mirror, err)
		}
		src.endpoints = append(src.endpoints, m)
	}
	src.endpoints = append(src.endpoints, e)
	return src, nil
}

// newMirror is of's repository on a mirror, HOST or HOST/PREFIX. Who it is asked
// as has nothing to do with the registry, unless the settings say so.
func newMirror(mirror string, of *endpoint, net Network) (*endpoint, error) {
	host, prefix, _ := strings.Cut(mirror, "/")
	if prefix != "" {
		prefix += "/"
	}
	h := net.Hosts[host]
	e, err := newEndpoint(host, prefix+of.repo.RepositoryStr(), h, net)
	if err != nil {
		return nil, err
	}
	e.mirror = true
	switch {
	case h.MirrorLogins != nil:
		e.credentials = h.MirrorLogins
	case h.TakesLogins:
		e.loginTo, e.user = of.loginTo, of.user
	}
	return e, nil
}

func (s *registrySource) local() bool { return false }

func (s *registrySource) origin() string {
	if s.served == nil {
		return s.ref.registry
	}
	return s.served.host
}

func (s *registrySource) root(ctx context.Context) ([]byte, error) {
	if !s.ref.digest.IsZero() {
		return s.manifest(ctx, s.ref.digest)
	}
	return s.getManifest(ctx, s.ref.tag, store.Digest{})
}

func (s *registrySource) manifest(ctx context.Context, d store.Digest) ([]byte, error) {
	return s.getManifest(ctx, d.String(), d)
}

// getManifest asks for a tag or a digest. want is zero for a tag.
func (s *registrySource) getManifest(ctx context.Context, name string, want store.Digest) (raw []byte, err error) {
	header := http.Header{"Accept": {manifestTypes}}
	err = s.each(ctx, func(e *endpoint, last bool) error {
		ctx, cancel := shareOf(ctx, last)
		defer cancel()
		resp, err := e.open(ctx, "manifests/"+name, header)
		var status *statusError
		if want.IsZero() && errors.As(err, &status) && status.status == http.StatusNotFound {
			return &noTag{err}
		}
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if raw, err = readLimited(resp.Body, s.limit); err != nil {
			return err
		}
		if got := digestOf(raw); !want.IsZero() && got != want {
			return s.distrust("manifest", want.String(), got.String(), e)
		}
		s.served = e
		return nil
	})
	return raw, err
}

// noTag is a host's word that it has no such tag. A mirror that does not follow
// tags may have the image by its digest all the same.
type noTag struct{ error }

// Unwrap returns the host's answer.
func (e *noTag) Unwrap() error { return e.error }

// shareOf leaves half of the time for those who are asked after a mirror.
func shareOf(ctx context.Context, last bool) (context.Context, context.CancelFunc) {
	deadline, ok := ctx.Deadline()
	if last || !ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, time.Until(deadline)/2)
}

func (s *registrySource) blob(ctx context.Context, desc v1.Descriptor) (io.ReadCloser, error) {
	return s.openBlob(ctx, desc, http.Header{}, 0)
}

// blobFrom opens a blob at an offset, also where the host sends all of it.
func (s *registrySource) blobFrom(ctx context.Context, desc v1.Descriptor, from int64) (io.ReadCloser, error) {
	return s.openBlob(ctx, desc, http.Header{"Range": {fmt.Sprintf("bytes=%d-%d", from, desc.Size-1)}}, from)
}

func (s *registrySource) openBlob(ctx context.Context, desc v1.Descriptor, header http.Header, from int64) (io.ReadCloser, error) {
	var body *served
	err := s.each(ctx, func(e *endpoint, _ bool) error {
		resp, err := e.open(ctx, "blobs/"+desc.Digest.String(), header)
		if err != nil {
			return err
		}
		body = &served{resp.Body, s, e, resp.ContentLength >= 0 && resp.StatusCode == http.StatusOK}
		if resp.StatusCode == http.StatusOK {
			return skip(body, from)
		}
		if at, total, ok := parseContentRange(resp.Header.Get("Content-Range")); !ok || at != from || total >= 0 && total != desc.Size {
			resp.Body.Close()
			return fmt.Errorf("%s sent another part of a layer than it was asked for", e.host)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return body, nil
}

// parseContentRange reads "bytes FROM-TO/TOTAL"; a total of "*" is -1.
func parseContentRange(value string) (from, total int64, ok bool) {
	unit, rest, _ := strings.Cut(value, " ")
	span, size, _ := strings.Cut(rest, "/")
	first, last, _ := strings.Cut(span, "-")
	from, err1 := strconv.ParseInt(first, 10, 64)
	to, err2 := strconv.ParseInt(last, 10, 64)
	total, err3 := strconv.ParseInt(size, 10, 64)
	if size == "*" {
		total, err3 = -1, nil
	}
	ok = errors.Join(err1, err2, err3) == nil && unit == "bytes" && from >= 0 && to >= from && (total == -1 || to < total)
	return from, total, ok
}

// each calls try for the mirrors and the registry until one works. When none
// does, those that were only busy or broke off are tried again after a pause. A
// mirror that failed once comes last from then on, so that a dead one costs its
// time once.
func (s *registrySource) each(ctx context.Context, try func(e *endpoint, last bool) error) error {
	asked, failed := s.order(), &failures{}
	for n := 0; ; n++ {
		again, done := s.round(ctx, asked, n, try, failed)
		if done {
			return failed.last
		}
		if err := failed.sum(); len(again) == 0 || !s.retries.pause(ctx, n, err) {
			return err
		}
		asked = again
	}
}

// order returns who is asked, the best first.
func (s *registrySource) order() []*endpoint {
	var first, last []*endpoint
	for _, e := range s.endpoints {
		switch e.standing.Load() {
		case good:
			first = append(first, e)
		case failing:
			last = append(last, e)
		}
	}
	return append(first, last...)
}

// round asks each once. It returns those that are worth asking again, or that
// there is no more to do: one worked, or the time is over.
func (s *registrySource) round(ctx context.Context, asked []*endpoint, n int, try func(e *endpoint, last bool) error, failed *failures) (again []*endpoint, done bool) {
	for i, e := range asked {
		err := try(e, i == len(asked)-1)
		if failed.note(e, err); err == nil || ctx.Err() != nil {
			return nil, true
		}
		if no := (*noTag)(nil); !errors.As(err, &no) {
			e.lower(failing)
		}
		if worthRetry(err, n) {
			again = append(again, e)
		}
	}
	return again, false
}

// failures are how the endpoints failed that were asked in vain.
type failures struct {
	last     error // what came last, nil for success
	registry error // the registry's own
	mirrors  []mirrorFailure
}

type mirrorFailure struct {
	e   *endpoint
	err error
}

func (f *failures) note(e *endpoint, err error) {
	f.last = err
	if !e.mirror {
		f.registry = err
		return
	}
	f.mirrors = slices.DeleteFunc(f.mirrors, func(m mirrorFailure) bool { return m.e == e })
	f.mirrors = append(f.mirrors, mirrorFailure{e, err})
}

// sum is the error of the registry itself, which knows best what it has.
func (f *failures) sum() error {
	if len(f.mirrors) == 0 {
		return f.registry
	}
	return &mirrorsFailed{f.registry, f.mirrors}
}

// mirrorsFailed is an error of a registry that was asked because its mirrors
// failed, too.
type mirrorsFailed struct {
	err     error
	mirrors []mirrorFailure
}

// Error implements error.
func (m *mirrorsFailed) Error() string {
	var b strings.Builder
	b.WriteString(m.err.Error())
	for _, f := range m.mirrors {
		fmt.Fprintf(&b, "; the mirror %s: %v", f.e.host, f.err)
	}
	return b.String()
}

// Unwrap returns the registry's own error.
func (m *mirrorsFailed) Unwrap() error { return m.err }

// A served body knows who sends it.
type served struct {
	io.ReadCloser
	src *registrySource
	by  *endpoint
	// counted says that the host announced the length of the whole blob, so
	// that a short body is no broken connection.
	counted bool
}

// distrust says that what arrived is not what was named, and who sent it. Of
// them mirrors are not asked again.
func (s *registrySource) distrust(what, want, got string, by ...*endpoint) error {
	wrong := &wrongBytes{}
	for _, e := range by {
		e.lower(distrusted)
		wrong.hosts = append(wrong.hosts, e.host)
		wrong.elsewhere = wrong.elsewhere || e.mirror
	}
	wrong.err = mismatch(what, want, got, wrong.hosts...)
	return wrong
}

// wrongBytes is what distrust returns.
type wrongBytes struct {
	hosts     []string
	elsewhere bool // somebody else may have the right ones
	err       error
}

// Error implements error.
func (w *wrongBytes) Error() string { return w.err.Error() }

// Unwrap returns the fault.
func (w *wrongBytes) Unwrap() error { return w.err }

// isElsewhere reports whether err is wrong bytes from a mirror, so that asking
// again may bring the right ones from somebody else.
func isElsewhere(err error) bool {
	var wrong *wrongBytes
	return errors.As(err, &wrong) && wrong.elsewhere
}
