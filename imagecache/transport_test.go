package imagecache

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/berth-hpc/berth/fault"
)

func TestGuardRefusesPlainHTTP(t *testing.T) {
	for _, test := range []struct {
		host     string
		insecure bool
		refused  bool
	}{
		{"registry.invalid", false, true},
		{"10.0.0.1:5000", false, true}, // the library would allow private addresses
		{"registry.invalid", true, false},
		{"127.0.0.1:1", false, false},
		{"localhost:1", false, false},
		{"[::1]:1", false, false},
	} {
		g, err := newGuard(test.host, Host{Insecure: test.insecure}, Network{})
		if err != nil {
			t.Fatal(err)
		}
		sent := false
		g.next = roundTrip(func(*http.Request) (*http.Response, error) {
			sent = true
			return nil, io.EOF
		})
		req := httptest.NewRequest(http.MethodGet, "http://"+test.host+"/v2/", nil)
		_, err = g.RoundTrip(req)
		if sent == test.refused || errors.Is(err, errPlainHTTP) != test.refused {
			t.Errorf("%+v: sent %v, %v", test, sent, err)
		}
	}
}

func quietLog() *log.Logger { return log.New(io.Discard, "", 0) }

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestStallsEnd(t *testing.T) {
	release := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/body" {
			w.(http.Flusher).Flush()
		}
		<-release
	}))
	defer srv.Close()
	defer close(release)
	g, err := newGuard("127.0.0.1", Host{}, Network{HeaderTimeout: 50 * time.Millisecond, StallTimeout: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: g}
	t.Run("headers", func(t *testing.T) {
		_, err := client.Do(get(t, srv.URL+"/headers"))
		if !isTimeout(err) || !strings.Contains(err.Error(), "awaiting response headers") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("body", func(t *testing.T) {
		resp, err := client.Do(get(t, srv.URL+"/body"))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if _, err := io.ReadAll(resp.Body); !errors.Is(err, errStalled) {
			t.Errorf("got %v", err)
		}
	})
}

func get(t *testing.T, url string) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(testContext(t), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	return req
}

// TestFailures asks in vain in every way, and looks at what a user reads.
func TestFailures(t *testing.T) {
	r := newTestRegistry(t)
	img := imageOf(t, tarOf(t, file("f", 0o644, "x")))
	r.push(t, "x:1", img)
	status := func(code int) func(*testing.T) Reference {
		return func(t *testing.T) Reference {
			r.onRequest(func(w http.ResponseWriter, _ *http.Request) bool {
				http.Error(w, `{"errors":[{"code":"DENIED","message":"requested access\u001b[31m\ndenied"}]}`, code)
				return true
			})
			return mustParse(t, r.host+"/x:1")
		}
	}
	for _, test := range []struct {
		name          string
		ref           func(*testing.T) Reference
		blame         fault.Blame
		cause, remedy string
	}{
		{"no such tag", func(t *testing.T) Reference { return mustParse(t, r.host+"/x:2") }, fault.User, "404", "spelling"},
		{"no such image", func(t *testing.T) Reference { return mustParse(t, r.host+"/nope:1") }, fault.User, "404", "spelling"},
		{"401", status(401), fault.User, "401 Unauthorized (DENIED: requested access [31m denied)", "without a login"},
		{"403", status(403), fault.User, "403", "without a login"},
		{"405", status(405), fault.Site, "405", "admin"},
		{"nobody listens", func(t *testing.T) Reference { return mustParse(t, freePort(t)+"/x:1") }, fault.Site, "connection refused", "nothing listens"},
		{"no such host", func(t *testing.T) Reference { return mustParse(t, "registry.invalid/x:1") }, fault.Site, "registry.invalid", "look up names"},
	} {
		t.Run(test.name, func(t *testing.T) {
			r.onRequest(func(http.ResponseWriter, *http.Request) bool { return false })
			_, err := Resolve(testContext(t), test.ref(t), HostPlatform(), Network{})
			if err == nil {
				t.Fatal("no error")
			}
			if fault.Of(err) != test.blame || !strings.Contains(err.Error(), test.cause) || !strings.Contains(fault.Remedy(err), test.remedy) {
				t.Errorf("got %v (%v), remedy %q", err, fault.Of(err), fault.Remedy(err))
			}
			if strings.ContainsAny(err.Error(), "\n\x1b") {
				t.Errorf("%q is not one line of text", err)
			}
		})
	}
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func TestOverloadIsRetried(t *testing.T) {
	r := newTestRegistry(t)
	ref := r.push(t, "x:1", imageOf(t, tarOf(t, file("f", 0o644, "x"))))
	failures := 1
	r.onRequest(func(w http.ResponseWriter, _ *http.Request) bool {
		if failures == 0 {
			return false
		}
		failures--
		w.WriteHeader(http.StatusServiceUnavailable)
		return true
	})
	if _, err := Resolve(testContext(t), ref, HostPlatform(), Network{}); err != nil {
		t.Error(err)
	}
}

func TestCertificates(t *testing.T) {
	srv := httptest.NewUnstartedServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	t.Cleanup(srv.Close)
	host := strings.TrimPrefix(srv.URL, "https://")
	r := &testRegistry{host: host}
	if err := remote.Write(r.tag(t, "x:1"), imageOf(t, tarOf(t, file("f", 0o644, "x"))), remote.WithTransport(srv.Client().Transport)); err != nil {
		t.Fatal(err)
	}
	ca := filepath.Join(t.TempDir(), "ca.pem")
	raw := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})
	if err := os.WriteFile(ca, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	ref := mustParse(t, host+"/x:1")
	for _, test := range []struct {
		name   string
		host   Host
		ok     bool
		remedy string
	}{
		{"unknown", Host{}, false, "its CA file"},
		{"CA file", Host{CAFile: ca}, true, ""},
		{"insecure", Host{Insecure: true}, true, ""},
		{"missing CA file", Host{CAFile: ca + "x"}, false, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := Resolve(testContext(t), ref, HostPlatform(), Network{Hosts: map[string]Host{host: test.host}})
			if (err == nil) != test.ok {
				t.Errorf("got %v", err)
			}
			if err != nil && (fault.Of(err) != fault.Site || !strings.Contains(fault.Remedy(err), test.remedy)) {
				t.Errorf("blame %v, remedy %q", fault.Of(err), fault.Remedy(err))
			}
		})
	}
}

func TestMirrors(t *testing.T) {
	mirror, origin := newTestRegistry(t), newTestRegistry(t)
	img := imageOf(t, tarOf(t, file("f", 0o644, "x")))
	mirror.push(t, "cache/x:1", img)
	only := imageOf(t, tarOf(t, file("f", 0o644, "only at home")))
	origin.push(t, "y:1", only)
	ref := origin.push(t, "x:1", img)
	net := Network{Hosts: map[string]Host{origin.host: {Mirrors: []string{freePort(t), mirror.host + "/cache"}}}}
	im, err := Pull(testContext(t), openStore(t), ref, FetchOptions{Network: net})
	if err != nil {
		t.Fatal(err)
	}
	if rec, _ := im.Record(); origin.gets.Load() != 0 || rec.Source != mirror.host {
		t.Errorf("%d requests to the registry itself, source %s", origin.gets.Load(), rec.Source)
	}
	if _, err := Pull(testContext(t), openStore(t), mustParse(t, origin.host+"/y:1"), FetchOptions{Network: net}); err != nil {
		t.Errorf("an image that mirrors lack: %v", err)
	}
}

// fixedLogin is a keychain with one login.
type fixedLogin struct{ user, password string }

func (f fixedLogin) Resolve(authn.Resource) (authn.Authenticator, error) {
	return &authn.Basic{Username: f.user, Password: f.password}, nil
}

func TestLogins(t *testing.T) {
	r := newTestRegistry(t)
	public := r.push(t, "public:1", imageOf(t, tarOf(t, file("f", 0o644, "public"))))
	private := r.push(t, "private:1", imageOf(t, tarOf(t, file("f", 0o644, "private"))))
	login := fixedLogin{"me", "secret"}
	for _, scheme := range []string{"basic", "bearer"} {
		r.onRequest(map[string]func(http.ResponseWriter, *http.Request) bool{"basic": basicAuth(login), "bearer": bearerAuth(r.host, login)}[scheme])
		for _, test := range []struct {
			name  string
			ref   Reference
			login authn.Keychain
			ok    bool
		}{
			{"public, nobody", public, nil, scheme == "bearer"},
			{"public, me", public, login, true},
			{"private, nobody", private, nil, false},
			{"private, me", private, login, true},
			{"private, wrong password", private, fixedLogin{"me", "wrong"}, false},
		} {
			t.Run(scheme+"/"+test.name, func(t *testing.T) {
				_, err := Pull(testContext(t), openStore(t), test.ref, FetchOptions{Network: Network{Credentials: test.login}})
				if (err == nil) != test.ok {
					t.Errorf("got %v", err)
				}
				if err != nil && (fault.Of(err) != fault.User || strings.Contains(err.Error(), "secret")) {
					t.Errorf("blame %v: %v", fault.Of(err), err)
				}
			})
		}
	}
}

func basicAuth(login fixedLogin) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		if u, p, _ := r.BasicAuth(); u == login.user && p == login.password {
			return false
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
		w.WriteHeader(http.StatusUnauthorized)
		return true
	}
}

// bearerAuth gives a token to everybody, and lets into what is private only
// the token of who logged in.
func bearerAuth(host string, login fixedLogin) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == "/token" {
			u, p, sent := r.BasicAuth()
			switch {
			case !sent:
				fmt.Fprint(w, `{"token":"anonymous"}`)
			case u == login.user && p == login.password:
				fmt.Fprint(w, `{"token":"known"}`)
			default:
				w.WriteHeader(http.StatusUnauthorized)
			}
			return true
		}
		token := r.Header.Get("Authorization")
		if token == "Bearer known" || token == "Bearer anonymous" && !strings.Contains(r.URL.Path, "private") {
			return false
		}
		w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/token",service="test"`, host))
		w.WriteHeader(http.StatusUnauthorized)
		return true
	}
}

func TestCancelledContextEnds(t *testing.T) {
	r := newTestRegistry(t)
	ref := r.push(t, "x:1", imageOf(t, tarOf(t, file("f", 0o644, "x"))))
	ctx, cancel := context.WithCancel(testContext(t))
	r.onRequest(func(_ http.ResponseWriter, req *http.Request) bool {
		cancel()
		<-req.Context().Done()
		return true
	})
	if _, err := Resolve(ctx, ref, HostPlatform(), Network{}); !errors.Is(err, context.Canceled) || fault.Remedy(err) == "" {
		t.Errorf("got %v, remedy %q", err, fault.Remedy(err))
	}
}

// TestSlowIsNotStalled reads a body that takes longer than the limit, though
// no part of it does.
func TestSlowIsNotStalled(t *testing.T) {
	const parts, pause, limit = 12, 250 * time.Millisecond, 2 * time.Second
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		tick := time.NewTicker(pause)
		defer tick.Stop()
		for range parts {
			_, _ = w.Write([]byte("part"))
			w.(http.Flusher).Flush()
			<-tick.C
		}
	}))
	defer srv.Close()
	g, err := newGuard("127.0.0.1", Host{}, Network{StallTimeout: limit})
	if err != nil {
		t.Fatal(err)
	}
	resp, err := (&http.Client{Transport: g}).Do(get(t, srv.URL))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if raw, err := io.ReadAll(resp.Body); err != nil || len(raw) != parts*len("part") {
		t.Errorf("%d bytes, %v", len(raw), err)
	}
}

// TestNoLoginIsNotTriedAgain: a keychain without a login for the registry adds
// no request.
func TestNoLoginIsNotTriedAgain(t *testing.T) {
	r := newTestRegistry(t)
	private := r.push(t, "private:1", imageOf(t, tarOf(t, file("f", 0o644, "x"))))
	auth := bearerAuth(r.host, fixedLogin{"me", "secret"})
	var tokens atomic.Int64
	r.onRequest(func(w http.ResponseWriter, req *http.Request) bool {
		if req.URL.Path == "/token" {
			tokens.Add(1)
		}
		return auth(w, req)
	})
	ask := func(login authn.Keychain) int64 {
		tokens.Store(0)
		if _, err := Resolve(testContext(t), private, HostPlatform(), Network{Credentials: login}); fault.Of(err) != fault.User {
			t.Errorf("got %v", err)
		}
		return tokens.Load()
	}
	if none, empty := ask(nil), ask(authn.NewMultiKeychain()); none != empty {
		t.Errorf("%d tokens, and %d with an empty keychain", none, empty)
	}
}
