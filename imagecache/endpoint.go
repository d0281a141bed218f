package imagecache

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// An endpoint is one repository on one host. It climbs a ladder until
// the host lets it in: no authentication at all, an anonymous token, the
// user's credentials. It stays on the step that worked.
type endpoint struct {
	host        string // as the user or the settings name it
	mirror      bool
	repo        name.Repository
	base        *guard
	credentials authn.Keychain
	loginTo     name.Repository // what the credentials are for
	user        string          // whose, "" for any
	scopes      []string        // what tokens are asked for
	hidden      bool            // see Network.Hidden
	schemes     []string

	// standing is what was learnt of a mirror during this pull.
	standing atomic.Int32

	mu     sync.Mutex
	step   int // of ladder
	client *http.Client
	login  string // which credentials were tried, in words
}

// The steps of an endpoint's ladder.
const (
	stepPlain = iota
	stepAnonymous
	stepCredentials
)

// What a mirror's standing can be. The registry itself is always good.
const (
	good       = iota
	failing    // did not deliver; asked after all others
	distrusted // sent wrong bytes; not asked any more
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
	base, err := newGuard(host, h, net)
	if err != nil {
		return nil, err
	}
	repo := registry.Repo(repository)
	return &endpoint{
		host: host, repo: repo, loginTo: repo, base: base, credentials: net.Credentials, hidden: net.Hidden,
		scopes: []string{repo.Scope(transport.PullScope)}, schemes: schemes, client: base.client(base),
	}, nil
}

func hostname(host string) string {
	if i := strings.LastIndexByte(host, ':'); i >= 0 && !strings.HasSuffix(host, "]") {
		host = host[:i]
	}
	return host
}

// lower makes a mirror's standing worse, never better.
func (e *endpoint) lower(to int32) {
	for now := e.standing.Load(); e.mirror && now < to; now = e.standing.Load() {
		if e.standing.CompareAndSwap(now, to) {
			return
		}
	}
}

// open asks for path of the repository.
func (e *endpoint) open(ctx context.Context, path string, header http.Header) (*http.Response, error) {
	return e.openAt(ctx, e.pathOf(path), header)
}

func (e *endpoint) pathOf(path string) string { return "/v2/" + e.repo.RepositoryStr() + "/" + path }

// openAt asks for path, with its query, until the host lets it in. The answer
// is 200, or 206 to a request for a part.
func (e *endpoint) openAt(ctx context.Context, path string, header http.Header) (*http.Response, error) {
	for {
		client, step := e.current()
		resp, err := e.request(ctx, client, path, header)
		if err != nil {
			return nil, err
		}
		if resp.StatusCode == http.StatusOK || resp.StatusCode == http.StatusPartialContent && header.Get("Range") != "" {
			return resp, nil
		}
		answer := e.explain(step, e.answerError(resp))
		if !answer.wantsLogin() && !e.mayHide(answer, path) {
			return nil, answer
		}
		if climbed, err := e.climb(ctx, step); err != nil || !climbed {
			return nil, refused(answer, err)
		}
	}
}

// mayHide reports whether answer may be another one to somebody it knows.
func (e *endpoint) mayHide(answer *statusError, path string) bool {
	return e.hidden && answer.via == "" && answer.status == http.StatusNotFound &&
		(strings.HasPrefix(path, e.pathOf("manifests/")) || strings.HasPrefix(path, e.pathOf("referrers/")))
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
	for step := e.step + 1; step <= stepCredentials; step++ {
		auth, err := e.authenticator(ctx, step)
		if err != nil {
			return false, err
		}
		if auth == nil {
			continue
		}
		t, err := transport.NewWithContext(ctx, e.repo.Registry, auth, e.base, e.scopes)
		if err == nil {
			e.step, e.client = step, e.base.client(t)
			return true, nil
		}
		err = e.requestError(err)
		if step == stepCredentials {
			return false, loginError(e.login, err)
		}
		if !isRefusal(err) {
			return false, fmt.Errorf("log in: %w", err)
		}
	}
	return false, nil
}

// isRefusal reports whether a host does not know who asks, or does not let them.
func isRefusal(err error) bool {
	var status *statusError
	return errors.As(err, &status) && status.status >= 400 && !status.worthRetry()
}

// authenticator returns who to be on a step, nil for nobody.
func (e *endpoint) authenticator(ctx context.Context, step int) (authn.Authenticator, error) {
	if step == stepAnonymous {
		return authn.Anonymous, nil
	}
	if e.credentials == nil {
		return nil, nil
	}
	auth, err := authn.Resolve(ctx, e.credentials, wanted{e.loginTo, e.user})
	if err != nil {
		if e.mirror {
			return nil, fmt.Errorf("look up the login for the mirror: %w", err)
		}
		return nil, fmt.Errorf("look up your login: %w", err)
	}
	if auth == authn.Anonymous {
		return nil, nil
	}
	e.login = loginWords(auth)
	return auth, nil
}

// request sends a GET by HTTPS and then, where the host may speak it, by plain
// HTTP, and remembers what worked. A host with a bad certificate speaks HTTPS;
// nothing is gained by asking it in clear.
func (e *endpoint) request(ctx context.Context, client *http.Client, path string, header http.Header) (*http.Response, error) {
	e.mu.Lock()
	schemes := e.schemes
	e.mu.Unlock()
	var err error
	for _, scheme := range schemes {
		address := scheme + "://" + e.repo.RegistryStr() + path
		req, reqErr := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
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
		if isCertificateError(err) || ctx.Err() != nil {
			break
		}
	}
	return nil, e.requestError(err)
}

// requestError takes the address out of an error: where a registry redirects
// to, that holds a signature that is as good as a login. What the library says
// of a token that was refused becomes a statusError.
func (e *endpoint) requestError(err error) error {
	var refused *transport.Error
	if errors.As(err, &refused) {
		s := &statusError{host: e.host, status: refused.StatusCode, anonymous: e.credentials == nil}
		if refused.Request != nil && refused.Request.URL.Host != e.repo.RegistryStr() {
			s.host = refused.Request.URL.Host
		}
		if len(refused.Errors) > 0 {
			s.detail = oneLine(string(refused.Errors[0].Code) + ": " + refused.Errors[0].Message)
		}
		return s
	}
	var request *url.Error
	if errors.As(err, &request) {
		return fmt.Errorf("ask %s: %w", e.host, request.Err)
	}
	return err
}

// answerError closes resp and says what it was.
func (e *endpoint) answerError(resp *http.Response) *statusError {
	defer resp.Body.Close()
	s := &statusError{host: e.host, status: resp.StatusCode, anonymous: e.credentials == nil, mirror: e.mirror}
	s.after = retryAfter(resp.Header.Get("Retry-After"), time.Now())
	if resp.Request.Response != nil { // a redirect led there
		s.host, s.via = resp.Request.URL.Host, e.host
	}
	raw, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	var body struct {
		Errors []struct{ Code, Message string }
	}
	if json.Unmarshal(raw, &body) == nil && len(body.Errors) > 0 {
		s.detail = oneLine(strings.TrimSpace(body.Errors[0].Code + ": " + body.Errors[0].Message))
	}
	return s
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
