package imagecache

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"

	"github.com/berth-hpc/berth/fault"
)

// secureWith is a server by HTTPS with a certificate for name that is good from
// and until then, and its CA file.
func secureWith(t *testing.T, name string, from, until time.Time) (host, ca string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: from, NotAfter: until,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	if ip := net.ParseIP(name); ip != nil {
		template.IPAddresses = []net.IP{ip}
	} else {
		template.DNSNames = []string{name}
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(http.NotFoundHandler())
	srv.Config.ErrorLog = quietLog()
	srv.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{raw}, PrivateKey: key}}, MinVersion: tls.VersionTLS12}
	srv.StartTLS()
	t.Cleanup(srv.Close)
	ca = filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	return strings.TrimPrefix(srv.URL, "https://"), ca
}

// deaf is an address that takes connections and never says a word.
func deaf(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.Addr().String()
}

// TestMessagesOfConnections: what users and admins read when a registry cannot
// be spoken to. Statuses and transfers are in TestFaults.
func TestMessagesOfConnections(t *testing.T) {
	now := time.Now()
	good, goodCA := secureWith(t, "127.0.0.1", now.Add(-time.Hour), now.Add(time.Hour))
	old, oldCA := secureWith(t, "127.0.0.1", now.Add(-2*time.Hour), now.Add(-time.Hour))
	other, otherCA := secureWith(t, "elsewhere.example", now.Add(-time.Hour), now.Add(time.Hour))
	silent := deaf(t)
	for _, test := range []struct {
		name, host, ca string
		proxied        bool // through a proxy, so that the name is not this machine's
		cause, remedy  string
	}{
		{"DNS", "registry.invalid", "", false, "lookup registry.invalid", "check the spelling of registry.invalid"},
		{"refused", freePort(t), "", false, "connection refused", "nothing listens at"},
		{"silent", silent, "", false, "timeout", "does not answer in time"},
		{"unknown CA", good, "", false, "certificate signed by unknown authority", `the admin sets registry."` + good + `".ca`},
		{"expired", old, oldCA, false, "has expired", "is expired or not valid yet"},
		{"wrong name", other, otherCA, false, "cannot validate certificate for 127.0.0.1", "for another name than " + other},
		{"nothing there", good, goodCA, false, "answered 404", "check the spelling"},
		{"plain HTTP", "plain.example", "", true, "server gave HTTP response to HTTPS client", `the admin sets registry."plain.example".insecure = true`},
		{"no CA file", good, "/no/such/file", false, "read CA file", "look at that file"},
		{"CA file that is none", good, "/dev/null", false, "no certificate in it", ""},
	} {
		for who, credentials := range map[string]authn.Keychain{"user": fixedLogin{"me", "geheim"}, "node": nil} {
			t.Run(test.name+"/"+who, func(t *testing.T) {
				network := impatient(test.name)
				network.Credentials = credentials
				network.Hosts = map[string]Host{test.host: {CAFile: test.ca}}
				if test.proxied {
					plain := httptest.NewServer(http.NotFoundHandler())
					defer plain.Close()
					network.Proxy = startProxy(t, strings.TrimPrefix(plain.URL, "http://")).url
				}
				ref := mustParse(t, test.host+"/team/tool:1")
				_, err := Pull(testContext(t), openStore(t), ref, FetchOptions{Network: network})
				blame := fault.Site
				if strings.Contains(test.cause, "404") {
					blame = fault.User
				}
				checkMessage(t, err, ref, test.cause, test.remedy, blame)
			})
		}
	}
}

// TestMessagesOfDockerHub: what its answers mean there.
func TestMessagesOfDockerHub(t *testing.T) {
	ref := mustParse(t, "debain:12")
	for _, test := range []struct {
		err    *statusError
		blame  fault.Blame
		remedy string
	}{
		{&statusError{host: "docker.io", status: 429}, fault.Site, `log in with`},
		{&statusError{host: "docker.io", status: 429}, fault.Site, `registry."docker.io".mirrors`},
		{&statusError{host: "docker.io", status: 401}, fault.User, "check the spelling of library/debain (Docker Hub says the same of names that do not exist)"},
		{&statusError{host: "docker.io", status: 401, anonymous: true}, fault.User, "without a login"},
	} {
		err := imageFault("resolve", ref, test.err)
		checkMessage(t, err, ref, "docker.io answered", test.remedy, test.blame)
	}
}

// TestRedirectsStayOutside: a registry that is elsewhere leads nobody to this
// machine, to a cloud's metadata, or from HTTPS to clear text.
func TestRedirectsStayOutside(t *testing.T) {
	address, ca := secureRegistry(t)
	for how, cause := range map[string]string{
		"layer.redirect.inward": "redirects to this machine or its network's own services at 169.254.169.254",
		"layer.redirect.http":   "the registry wants plain HTTP at example.com, where it redirects to",
		"layer.redirect.loop":   "redirects in circles",
	} {
		net := impatient()
		net.Proxy = startProxy(t, address).url
		net.Hosts = map[string]Host{"example.com": {CAFile: ca}}
		ref := mustParse(t, "example.com/faults/"+how+"/x:1")
		_, err := Pull(testContext(t), openStore(t), ref, FetchOptions{Network: net})
		checkMessage(t, err, ref, cause, "", fault.Site)
	}
	for to, refused := range map[string]bool{
		"https://127.0.0.1/": true, "https://[::1]:5/": true, "https://localhost/": true, "https://169.254.169.254/": true,
		"https://0.0.0.0/": true, "http://cdn.example/": true, "https://cdn.example/": false, "https://10.0.0.1/": false,
	} {
		g, err := newGuard("quay.io", Host{}, Network{})
		if err != nil {
			t.Fatal(err)
		}
		sent := false
		g.next = roundTrip(func(*http.Request) (*http.Response, error) { sent = true; return nil, net.ErrClosed })
		if _, err := g.RoundTrip(get(t, to)); err == nil || sent == refused {
			t.Errorf("%s: sent %v, %v", to, sent, err)
		}
	}
}
