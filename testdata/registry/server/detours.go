package server

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Paths of the services beside the registry.
const (
	tokenPrefix = "/token/"
	storePrefix = "/store/"
)

func loggedIn(req *http.Request) bool {
	name, password, ok := req.BasicAuth()
	return ok && name+":"+password == Login
}

func (f *faulty) wantLogin(w http.ResponseWriter, req *request) bool {
	if loggedIn(req.Request) {
		return false
	}
	w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
	refuse(w, http.StatusUnauthorized, "")
	return true
}

// wantToken lets through who has a token that is still good.
func (f *faulty) wantToken(w http.ResponseWriter, req *request, how fault) bool {
	token, _ := strings.CutPrefix(req.Header.Get("Authorization"), "Bearer ")
	f.mu.Lock()
	uses := f.tokens[token]
	f.tokens[token] = uses - 1
	f.mu.Unlock()
	if uses > 0 {
		return false
	}
	f.mu.Lock()
	f.challenge = fmt.Sprintf(`Bearer realm="%s://%s%s%s",service="test"`, scheme(req), req.Host, tokenPrefix, how.text)
	f.mu.Unlock()
	return f.challenged(w)
}

// challenged says where tokens are given, if they are wanted.
func (f *faulty) challenged(w http.ResponseWriter) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.challenge == "" {
		return false
	}
	w.Header().Set("WWW-Authenticate", f.challenge)
	refuse(w, http.StatusUnauthorized, "")
	return true
}

// giveToken answers /token/FAULT.
func (f *faulty) giveToken(w http.ResponseWriter, req *http.Request) {
	how := parseFaults(strings.TrimPrefix(req.URL.Path, tokenPrefix))[0]
	switch {
	case how.has("down"):
		refuse(w, http.StatusServiceUnavailable, "")
		return
	case how.has("login") && !loggedIn(req):
		refuse(w, http.StatusUnauthorized, "")
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.issued++
	token := fmt.Sprintf("token%d", f.issued)
	f.tokens[token] = how.number("uses", 1<<30)
	fmt.Fprintf(w, `{"token":%q,"expires_in":60}`, token)
}

func scheme(req *request) string {
	if req.TLS != nil {
		return "https"
	}
	return "http"
}

// redirect sends the client to the store of blobs, by an address that is
// signed, as object stores have them.
func (f *faulty) redirect(w http.ResponseWriter, req *request, how fault) bool {
	to, host := scheme(req), req.Host
	path := storePrefix + strings.TrimPrefix(req.URL.Path, "/v2/") + "?X-Signature=hush"
	switch {
	case how.has("other"):
		host = otherName(host)
	case how.has("http"):
		to = "http"
	case how.has("loop"):
		path = req.outer
	case how.has("inward"):
		to, host = "http", "169.254.169.254"
	}
	if n := how.number("expired", 0); n > 0 {
		once := how
		once.text, once.times = "expired", n
		if f.strikes(once, req) {
			path += "&expired=1"
		}
	}
	http.Redirect(w, req.Request, to+"://"+host+path, http.StatusTemporaryRedirect)
	return true
}

// otherName is this machine by another name than the client knows.
func otherName(host string) string {
	name, port, err := net.SplitHostPort(host)
	if err != nil || name != "127.0.0.1" {
		return host
	}
	return net.JoinHostPort("localhost", port)
}

// serveStored answers as an object store: it knows signatures, not logins.
func (f *faulty) serveStored(w http.ResponseWriter, req *http.Request) {
	query := req.URL.Query()
	switch {
	case req.Header.Get("Authorization") != "":
		http.Error(w, "<Error><Code>InvalidArgument</Code></Error>", http.StatusBadRequest)
	case query.Get("X-Signature") != "hush", query.Get("expired") != "":
		http.Error(w, "<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>", http.StatusForbidden)
	default:
		inner := req.Clone(req.Context())
		inner.URL.Path = "/v2/" + strings.TrimPrefix(req.URL.Path, storePrefix)
		f.next.ServeHTTP(w, inner)
	}
}

// move answers every other request as if the tag had been moved meanwhile.
func (f *faulty) move(w http.ResponseWriter, req *request, how fault) bool {
	how.times = 1 << 30
	f.strikes(how, req)
	f.mu.Lock()
	n := f.struck[how.text+" "+req.outer]
	f.mu.Unlock()
	if n%2 == 1 {
		return false
	}
	moved := req.Clone(req.Context())
	moved.URL.Path = moved.URL.Path[:strings.LastIndex(moved.URL.Path, "/")+1] + "moved"
	f.next.ServeHTTP(w, moved)
	return true
}

// otherPlatform wraps the manifest into an index that has it for a machine
// that nobody tests on.
func (f *faulty) otherPlatform(w http.ResponseWriter, req *request) bool {
	real := f.real(req)
	sum := sha256.Sum256(real.body)
	index, err := json.Marshal(v1.IndexManifest{
		SchemaVersion: 2, MediaType: types.OCIImageIndex,
		Manifests: []v1.Descriptor{{
			MediaType: types.OCIManifestSchema1, Size: int64(len(real.body)),
			Digest:   v1.Hash{Algorithm: "sha256", Hex: fmt.Sprintf("%x", sum)},
			Platform: &v1.Platform{OS: "linux", Architecture: "s390x"},
		}},
	})
	if err != nil || real.status != http.StatusOK {
		refuse(w, http.StatusNotFound, "")
		return true
	}
	w.Header().Set("Content-Type", string(types.OCIImageIndex))
	_, _ = w.Write(index)
	return true
}
