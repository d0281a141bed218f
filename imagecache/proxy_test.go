package imagecache

import (
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/testdata/registry/server"
)

// testProxy is a proxy for CONNECT and for plain HTTP that leads every name to
// one registry, and wants a login if it has one.
type testProxy struct {
	url, to, login string
	status         int // what it answers with instead, unless 0

	mu   sync.Mutex
	seen []string // METHOD HOST
}

func startProxy(t *testing.T, to string) *testProxy {
	t.Helper()
	p := &testProxy{to: to}
	srv := httptest.NewServer(p)
	t.Cleanup(srv.Close)
	p.url = srv.URL
	return p
}

// withLogin is the proxy's address with a login in it.
func (p *testProxy) withLogin(login string) string {
	return strings.Replace(p.url, "http://", "http://"+login+"@", 1)
}

func (p *testProxy) requests() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.seen, ", ")
}

// ServeHTTP implements http.Handler.
func (p *testProxy) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	p.mu.Lock()
	p.seen = append(p.seen, req.Method+" "+req.Host)
	p.mu.Unlock()
	want := "Basic " + base64.StdEncoding.EncodeToString([]byte(p.login))
	switch {
	case p.status != 0:
		http.Error(w, "no", p.status)
	case p.login != "" && req.Header.Get("Proxy-Authorization") != want:
		w.Header().Set("Proxy-Authenticate", "Basic")
		http.Error(w, "who are you?", http.StatusProxyAuthRequired)
	case req.Method == http.MethodConnect:
		p.tunnel(w)
	default:
		p.forward(w, req)
	}
}

func (p *testProxy) tunnel(w http.ResponseWriter) {
	there, err := net.Dial("tcp", p.to)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	w.WriteHeader(http.StatusOK)
	here, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		there.Close()
		return
	}
	go func() {
		_, _ = io.Copy(there, buffered)
		there.Close()
	}()
	go func() {
		_, _ = io.Copy(here, there)
		here.Close()
	}()
}

func (p *testProxy) forward(w http.ResponseWriter, req *http.Request) {
	out := req.Clone(req.Context())
	out.RequestURI, out.URL.Host = "", p.to
	resp, err := http.DefaultTransport.RoundTrip(out)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer resp.Body.Close()
	for name, values := range resp.Header {
		w.Header()[name] = values
	}
	w.WriteHeader(resp.StatusCode)
	_, _ = io.Copy(w, resp.Body)
}

// secureRegistry serves x:1 by HTTPS to example.com, the name in httptest's
// certificate. Its address has no other name.
func secureRegistry(t *testing.T) (address, ca string) {
	t.Helper()
	reg, err := server.New(server.Options{Wrap: server.Faults})
	if err != nil {
		t.Fatal(err)
	}
	plain := httptest.NewServer(reg)
	t.Cleanup(plain.Close)
	r := &testRegistry{host: strings.TrimPrefix(plain.URL, "http://")}
	r.push(t, "x:1", imageOf(t, tarOf(t, file("f", 0o644, "through the proxy"))))
	srv := httptest.NewUnstartedServer(reg)
	srv.Config.ErrorLog = quietLog()
	srv.StartTLS()
	t.Cleanup(srv.Close)
	ca = filepath.Join(t.TempDir(), "ca.pem")
	raw := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})
	if err := os.WriteFile(ca, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	return strings.TrimPrefix(srv.URL, "https://"), ca
}

// TestProxies pulls through a proxy that alone knows the way: the names lead
// nowhere from here.
func TestProxies(t *testing.T) {
	address, ca := secureRegistry(t)
	reg := faultyRegistry(t, imageOf(t, tarOf(t, file("f", 0o644, "through the proxy"))))
	const login = "user:geheim"
	for _, test := range []struct {
		name          string
		ref           string
		net           func(p *testProxy) Network
		seen          string // what the proxy was asked
		cause, remedy string
	}{
		{"for all registries", "example.com/x:1", func(p *testProxy) Network {
			return Network{Proxy: p.withLogin(login), Hosts: map[string]Host{"example.com": {CAFile: ca}}}
		}, "CONNECT example.com:443", "", ""},
		{"for one registry", "example.com/x:1", func(p *testProxy) Network {
			return Network{Proxy: Direct, Hosts: map[string]Host{"example.com": {CAFile: ca, Proxy: p.withLogin(login)}}}
		}, "CONNECT example.com:443", "", ""},
		{"in clear", "example.com/x:1", func(p *testProxy) Network {
			p.to = reg.Host
			return Network{Proxy: p.withLogin(login), Hosts: map[string]Host{"example.com": {Insecure: true}}}
		}, "GET example.com", "", ""},
		{"redirects take it, too", "example.com/faults/layer.redirect.same/x:1", func(p *testProxy) Network {
			return Network{Proxy: p.withLogin(login), Hosts: map[string]Host{"example.com": {CAFile: ca}}}
		}, "CONNECT example.com:443", "", ""},
		{"mirrors take it, too", "example.net/x:1", func(p *testProxy) Network {
			return Network{Proxy: p.withLogin(login), Hosts: map[string]Host{"example.com": {CAFile: ca}, "example.net": {Mirrors: []string{"example.com"}}}}
		}, "CONNECT example.com:443", "", ""},
		{"not for this one", "example.invalid/x:1", func(p *testProxy) Network {
			return Network{Proxy: p.withLogin(login), NoProxy: []string{".invalid"}}
		}, "", "lookup example.invalid", "look up names"},
		{"direct for one", "example.invalid/x:1", func(p *testProxy) Network {
			return Network{Proxy: p.withLogin(login), Hosts: map[string]Host{"example.invalid": {Proxy: Direct}}}
		}, "", "lookup example.invalid", "look up names"},
		{"wrong login", "example.com/x:1", func(p *testProxy) Network {
			return Network{Proxy: p.withLogin("user:ungeheim"), Hosts: map[string]Host{"example.com": {CAFile: ca}}}
		}, "CONNECT example.com:443", "answered 407 Proxy Authentication Required", "network.proxy"},
		{"wrong login, in clear", "example.com/x:1", func(p *testProxy) Network {
			return Network{Proxy: p.withLogin("user:ungeheim"), Hosts: map[string]Host{"example.com": {Insecure: true}}}
		}, "GET example.com", "answered 407 Proxy Authentication Required", "network.proxy"},
		{"refused", "example.com/x:1", func(p *testProxy) Network {
			p.status = http.StatusForbidden
			return Network{Proxy: p.withLogin(login)}
		}, "CONNECT example.com:443", "the proxy 127.0.0.1", "network.proxy"},
		{"proxy down", "example.com/x:1", func(p *testProxy) Network {
			return Network{Proxy: "http://" + login + "@" + freePort(t)}
		}, "", "connection refused", "look at the proxy"},
		{"proxy unknown", "example.com/x:1", func(p *testProxy) Network {
			return Network{Proxy: "http://" + login + "@proxy.invalid:3128"}
		}, "", "lookup proxy.invalid", "look at the proxy"},
		{"not an address", "example.com/x:1", func(p *testProxy) Network {
			return Network{Proxy: "http://user:geheim%zz@proxy"}
		}, "", "the address of the proxy is none", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := startProxy(t, address)
			p.login = login
			net := test.net(p)
			net.Retries = -1
			ref := mustParse(t, test.ref)
			im, err := Pull(testContext(t), openStore(t), ref, FetchOptions{Network: net})
			if seen := p.requests(); (seen == "") != (test.seen == "") || !strings.Contains(seen, test.seen) {
				t.Errorf("the proxy saw: %s", seen)
			}
			if test.cause == "" {
				if err != nil {
					t.Fatal(err)
				}
				if tree := readTree(t, im.Rootfs()); tree["f"] != "file 0644 through the proxy" {
					t.Errorf("%v", tree)
				}
				return
			}
			checkMessage(t, err, ref, test.cause, test.remedy, fault.Site)
			if rec := fmt.Sprintf("%+v %#v", err, err); strings.Contains(rec, "geheim") {
				t.Error("the password can be printed")
			}
		})
	}
}

// TestLoopbackNeedsNoProxy: a proxy for all is not for this machine.
func TestLoopbackNeedsNoProxy(t *testing.T) {
	reg := faultyRegistry(t, imageOf(t, tarOf(t, file("f", 0o644, "x"))))
	p := startProxy(t, reg.Host)
	if _, err := Resolve(testContext(t), mustParse(t, reg.Host+"/x:1"), Platform{}, Network{Proxy: p.url}); err != nil || p.requests() != "" {
		t.Errorf("%v, the proxy saw %s", err, p.requests())
	}
}

// TestEnvironmentIsTheLastResort: with no setting the process's environment
// decides, and only then.
func TestEnvironmentIsTheLastResort(t *testing.T) {
	for _, test := range []struct {
		proxy string
		own   string
		env   bool
	}{{"", "", true}, {Direct, "", false}, {"", Direct, false}, {"http://p:1", "", false}} {
		f, err := Network{Proxy: test.proxy}.proxyFor(Host{Proxy: test.own})
		if err != nil {
			t.Fatal(err)
		}
		if isEnv := f != nil && fmt.Sprintf("%p", f) == fmt.Sprintf("%p", http.ProxyFromEnvironment); isEnv != test.env {
			t.Errorf("%+v: from the environment: %v", test, isEnv)
		}
	}
	f, err := Network{Proxy: "http://p:1", NoProxy: []string{"10.0.0.0/8", ".site"}}.proxyFor(Host{})
	if err != nil {
		t.Fatal(err)
	}
	for host, want := range map[string]bool{"quay.io": true, "10.1.2.3": false, "r.site": false, "r.site.org": true, "localhost": false} {
		u, err := f(&http.Request{URL: &url.URL{Scheme: "https", Host: host}})
		if err != nil || (u != nil) != want {
			t.Errorf("%s: %v, %v", host, u, err)
		}
	}
}
