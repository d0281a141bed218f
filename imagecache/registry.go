package imagecache

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
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
}

func newRegistrySource(ref Reference, net Network) (*registrySource, error) {
	src := &registrySource{ref: ref}
	own := net.Hosts[ref.registry]
	for _, mirror := range own.Mirrors {
		host, prefix, _ := strings.Cut(mirror, "/")
		if prefix != "" {
			prefix += "/"
		}
		e, err := newEndpoint(host, prefix+ref.repository, net.Hosts[host], net)
		if err != nil {
			return nil, fmt.Errorf("use mirror %s: %w", mirror, err)
		}
		src.endpoints = append(src.endpoints, e)
	}
	e, err := newEndpoint(ref.registry, ref.repository, own, net)
	if err != nil {
		return nil, err
	}
	src.endpoints = append(src.endpoints, e)
	return src, nil
}

func (s *registrySource) local() bool { return false }

func (s *registrySource) origin() string {
	if s.served == nil {
		return s.ref.registry
	}
	return s.served.repo.RegistryStr()
}

func (s *registrySource) root(ctx context.Context) ([]byte, error) {
	if !s.ref.digest.IsZero() {
		return s.manifest(ctx, s.ref.digest)
	}
	return s.getManifest(ctx, s.ref.tag)
}

func (s *registrySource) manifest(ctx context.Context, d store.Digest) ([]byte, error) {
	raw, err := s.getManifest(ctx, d.String())
	if err != nil {
		return nil, err
	}
	if got := digestOf(raw); got != d {
		return nil, mismatch("manifest", d.String(), got.String())
	}
	return raw, nil
}

func (s *registrySource) getManifest(ctx context.Context, name string) ([]byte, error) {
	var raw []byte
	err := s.eachEndpoint(ctx, func(e *endpoint) error {
		body, err := e.get(ctx, "manifests/"+name, manifestTypes)
		if err != nil {
			return err
		}
		defer body.Close()
		if raw, err = readLimited(body, maxManifest); err == nil {
			s.served = e
		}
		return err
	})
	return raw, err
}

func (s *registrySource) blob(ctx context.Context, desc v1.Descriptor) (io.ReadCloser, error) {
	var body io.ReadCloser
	err := s.eachEndpoint(ctx, func(e *endpoint) (err error) {
		body, err = e.get(ctx, "blobs/"+desc.Digest.String(), "")
		return err
	})
	return body, err
}

// blobFrom opens a blob at an offset, also where the host sends all of it.
func (s *registrySource) blobFrom(ctx context.Context, desc v1.Descriptor, from int64) (io.ReadCloser, error) {
	var body io.ReadCloser
	err := s.eachEndpoint(ctx, func(e *endpoint) (err error) {
		body, err = e.getFrom(ctx, "blobs/"+desc.Digest.String(), from, desc.Size)
		return err
	})
	return body, err
}

// eachEndpoint calls try for the mirrors and the registry until one works. The
// error is that of the registry itself, which knows best what it has.
func (s *registrySource) eachEndpoint(ctx context.Context, try func(*endpoint) error) error {
	var err error
	for _, e := range s.endpoints {
		if err = try(e); err == nil || ctx.Err() != nil {
			return err
		}
	}
	return err
}

// An endpoint is one repository on one host. It climbs a ladder until
// the host lets it in: no authentication at all, an anonymous token, the
// user's credentials. It stays on the step that worked.
type endpoint struct {
	repo        name.Repository
	base        *guard
	credentials authn.Keychain
	schemes     []string

	mu     sync.Mutex
	step   int // of ladder
	client *http.Client
}

// The steps of an endpoint's ladder.
const (
	stepPlain = iota
	stepAnonymous
	stepCredentials
)

func newEndpoint(host, repository string, h Host, net Network) (*endpoint, error) {
	schemes := []string{"https"}
	var options []name.Option
	if h.Insecure || isLoopback(hostname(host)) {
		schemes = append(schemes, "http")
		options = append(options, name.Insecure)
	}
	registry, err := name.NewRegistry(host, options...)
	if err != nil {
		return nil, err
	}
	repo := registry.Repo(repository)
	base, err := newGuard(h, net)
	if err != nil {
		return nil, err
	}
	return &endpoint{
		repo: repo, base: base, credentials: net.Credentials, schemes: schemes,
		client: &http.Client{Transport: base},
	}, nil
}

func hostname(host string) string {
	if i := strings.LastIndexByte(host, ':'); i >= 0 && !strings.HasSuffix(host, "]") {
		host = host[:i]
	}
	return host
}

// get opens path of the repository.
func (e *endpoint) get(ctx context.Context, path, accept string) (io.ReadCloser, error) {
	header := http.Header{}
	if accept != "" {
		header.Set("Accept", accept)
	}
	resp, err := e.open(ctx, path, header)
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}

// getFrom opens path of the repository, which has size bytes, at an offset.
func (e *endpoint) getFrom(ctx context.Context, path string, from, size int64) (io.ReadCloser, error) {
	resp, err := e.open(ctx, path, http.Header{"Range": {fmt.Sprintf("bytes=%d-%d", from, size-1)}})
	if err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusPartialContent {
		if !strings.HasPrefix(resp.Header.Get("Content-Range"), fmt.Sprintf("bytes %d-", from)) {
			resp.Body.Close()
			return nil, fmt.Errorf("%s sent another part of a layer than it was asked for", e.repo.RegistryStr())
		}
		return resp.Body, nil
	}
	return resp.Body, skip(resp.Body, from)
}

// open asks until the host lets it in. The answer is 200, or 206 to a request
// for a part.
func (e *endpoint) open(ctx context.Context, path string, header http.Header) (*http.Response, error) {
	for {
		client, step := e.current()
		resp, err := e.request(ctx, client, path, header)
		if err != nil {
			return nil, err
		}
		if resp.StatusCode == http.StatusOK || resp.StatusCode == http.StatusPartialContent && header.Get("Range") != "" {
			return resp, nil
		}
		err = answerError(e.repo.RegistryStr(), resp)
		if resp.StatusCode != http.StatusUnauthorized && resp.StatusCode != http.StatusForbidden {
			return nil, err
		}
		if climbed, climbErr := e.climb(ctx, step); !climbed {
			return nil, errors.Join(err, climbErr)
		}
	}
}

func (e *endpoint) current() (*http.Client, int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.client, e.step
}

// climb takes the step after from, unless somebody else has already.
func (e *endpoint) climb(ctx context.Context, from int) (bool, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.step > from {
		return true, nil
	}
	for e.step < stepCredentials {
		e.step++
		auth, err := e.authenticator(ctx)
		if err != nil {
			return false, err
		}
		if auth == nil {
			continue
		}
		scopes := []string{e.repo.Scope(transport.PullScope)}
		t, err := transport.NewWithContext(ctx, e.repo.Registry, auth, e.base, scopes)
		if err == nil {
			e.client = &http.Client{Transport: t}
			return true, nil
		}
		if e.step == stepCredentials {
			return false, fmt.Errorf("log in: %w", err)
		}
	}
	return false, nil
}

// authenticator returns who to be on the current step, nil for nobody.
func (e *endpoint) authenticator(ctx context.Context) (authn.Authenticator, error) {
	if e.step == stepAnonymous {
		return authn.Anonymous, nil
	}
	if e.credentials == nil {
		return nil, nil
	}
	auth, err := authn.Resolve(ctx, e.credentials, e.repo)
	if err != nil {
		return nil, fmt.Errorf("look up your login: %w", err)
	}
	if auth == authn.Anonymous {
		return nil, nil
	}
	return auth, nil
}

// Tries of one request and the wait before each further one.
var retryWaits = [...]time.Duration{time.Second, 3 * time.Second}

// maxRetryAfter bounds how long a host may make us wait before another try.
const maxRetryAfter = 20 * time.Second

// request sends a GET and repeats it where that may help. When no time is left
// for another try the answer counts that came, which says more than that the
// time was over.
func (e *endpoint) request(ctx context.Context, client *http.Client, path string, header http.Header) (*http.Response, error) {
	for try := 0; ; try++ {
		resp, err := e.tryScheme(ctx, client, path, header)
		if try == len(retryWaits) || !worthRetry(ctx, resp, err) {
			return resp, err
		}
		pause := max(retryWaits[try], retryAfter(resp))
		if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) <= pause {
			return resp, err
		}
		if resp != nil {
			resp.Body.Close()
		}
		if err := wait(ctx, pause); err != nil {
			return nil, err
		}
	}
}

// retryAfter is what the host asks for, in seconds or not at all: nobody sends
// the form with a date.
func retryAfter(resp *http.Response) time.Duration {
	if resp == nil {
		return 0
	}
	seconds, err := strconv.Atoi(resp.Header.Get("Retry-After"))
	if err != nil {
		return 0
	}
	return min(time.Duration(seconds)*time.Second, maxRetryAfter)
}

// tryScheme sends a GET by HTTPS and then, where the host may speak it, by
// plain HTTP, and remembers what worked. A host with a bad certificate speaks
// HTTPS; nothing is gained by asking it in clear.
func (e *endpoint) tryScheme(ctx context.Context, client *http.Client, path string, header http.Header) (*http.Response, error) {
	e.mu.Lock()
	schemes := e.schemes
	e.mu.Unlock()
	var err error
	for _, scheme := range schemes {
		url := fmt.Sprintf("%s://%s/v2/%s/%s", scheme, e.repo.RegistryStr(), e.repo.RepositoryStr(), path)
		req, reqErr := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if reqErr != nil {
			return nil, reqErr
		}
		req.Header = header.Clone()
		var resp *http.Response
		if resp, err = client.Do(req); err == nil {
			e.mu.Lock()
			e.schemes = []string{scheme}
			e.mu.Unlock()
			return resp, nil
		}
		if isCertificateError(err) {
			break
		}
	}
	return nil, err
}

// worthRetry reports whether another try may end differently: the server is
// overloaded, or the connection broke. Nobody listening is not among them.
func worthRetry(ctx context.Context, resp *http.Response, err error) bool {
	if ctx.Err() != nil {
		return false
	}
	if err != nil {
		return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || isReset(err)
	}
	switch resp.StatusCode {
	case http.StatusTooManyRequests, http.StatusInternalServerError, http.StatusBadGateway,
		http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}

func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}

// answerError closes resp and says what it was.
func answerError(host string, resp *http.Response) error {
	defer resp.Body.Close()
	e := &statusError{host: host, status: resp.StatusCode}
	raw, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	var body struct {
		Errors []struct{ Code, Message string }
	}
	if json.Unmarshal(raw, &body) == nil && len(body.Errors) > 0 {
		e.detail = strings.TrimSpace(body.Errors[0].Code + ": " + oneLine(body.Errors[0].Message))
	}
	return e
}

// oneLine makes a registry's words fit to print: one line, no control
// characters, not too long.
func oneLine(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return ' '
		}
		return r
	}, s)
	return s[:min(len(s), 200)]
}
