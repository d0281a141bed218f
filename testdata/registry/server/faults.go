package server

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// faultPrefix begins the path of a request that is to fail.
const faultPrefix = "/v2/faults/"

// Login is what repositories below faults/auth want, in clear: a name, a
// colon, a password.
const Login = "alice:secret"

// Faults is a Wrap for Options: pulls from the repository faults/HOW/REPO are
// pulls from REPO that go wrong as HOW says, and all others go through.
//
//	status-NNN        every answer has that status; 429 says Retry-After: 1
//	manifest-NNN      the manifest is there, but no layer: status NNN
//	auth              401, unless the request has Login by basic authentication
//	layer-cut         the connection is closed in the middle of a layer
//	layer-stall       nothing more comes after the middle of a layer
//	layer-flip        one bit of a layer is another
//	platform          the tag names an index without an image for this machine
func Faults(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		rest, ok := strings.CutPrefix(req.URL.Path, faultPrefix)
		how, repo, _ := strings.Cut(rest, "/")
		if !ok || repo == "" {
			next.ServeHTTP(w, req)
			return
		}
		req = req.Clone(req.Context())
		req.URL.Path = "/v2/" + repo
		fail(w, req, how, next)
	})
}

// smallest is the size in bytes from which a blob is taken for a layer, not
// for a config.
const smallest = 64 << 10

func fail(w http.ResponseWriter, req *http.Request, how string, next http.Handler) {
	kind, number, _ := strings.Cut(how, "-")
	status, _ := strconv.Atoi(number)
	blob := strings.Contains(req.URL.Path, "/blobs/")
	switch {
	case kind == "status" && status >= 400, kind == "manifest" && status >= 400 && blob:
		refuse(w, status)
	case how == "auth" && !loggedIn(req):
		w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
		refuse(w, http.StatusUnauthorized)
	case how == "platform" && !strings.Contains(req.URL.Path, "sha256:"):
		otherPlatform(w, req, next)
	case kind == "layer" && blob:
		spoil(w, req, number, next)
	default:
		next.ServeHTTP(w, req)
	}
}

func loggedIn(req *http.Request) bool {
	name, password, ok := req.BasicAuth()
	return ok && name+":"+password == Login
}

func refuse(w http.ResponseWriter, status int) {
	if status == http.StatusTooManyRequests {
		w.Header().Set("Retry-After", "1")
	}
	w.WriteHeader(status)
	fmt.Fprintf(w, `{"errors":[{"code":"TEST","message":"refused on purpose"}]}`)
}

// answer is what next says to req.
func answer(req *http.Request, next http.Handler) *httptest.ResponseRecorder {
	rec := httptest.NewRecorder()
	next.ServeHTTP(rec, req)
	return rec
}

// otherPlatform wraps the manifest into an index that has it for a machine
// that nobody tests on.
func otherPlatform(w http.ResponseWriter, req *http.Request, next http.Handler) {
	real := answer(req, next)
	sum := sha256.Sum256(real.Body.Bytes())
	index, err := json.Marshal(v1.IndexManifest{
		SchemaVersion: 2, MediaType: types.OCIImageIndex,
		Manifests: []v1.Descriptor{{
			MediaType: types.OCIManifestSchema1, Size: int64(real.Body.Len()),
			Digest:   v1.Hash{Algorithm: "sha256", Hex: fmt.Sprintf("%x", sum)},
			Platform: &v1.Platform{OS: "linux", Architecture: "s390x"},
		}},
	})
	if err != nil || real.Code != http.StatusOK {
		refuse(w, http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", string(types.OCIImageIndex))
	_, _ = w.Write(index)
}

// spoil sends a layer, but not as it is.
func spoil(w http.ResponseWriter, req *http.Request, how string, next http.Handler) {
	real := answer(req, next)
	body := bytes.Clone(real.Body.Bytes())
	for name, values := range real.Header() {
		w.Header()[name] = values
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(real.Code)
	if len(body) < smallest || req.Method != http.MethodGet {
		_, _ = w.Write(body)
		return
	}
	if how == "flip" {
		body[len(body)/2] ^= 1
		_, _ = w.Write(body)
		return
	}
	_, _ = w.Write(body[:len(body)/2])
	_ = http.NewResponseController(w).Flush()
	if how == "stall" {
		<-req.Context().Done()
	}
	panic(http.ErrAbortHandler) // closes the connection
}
