package server_test

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/berth-hpc/berth/testdata/images"
	"github.com/berth-hpc/berth/testdata/registry/server"
)

// serve runs a registry on dir and returns how to stop it before the test's end.
func serve(t *testing.T, dir string) (host string, stop func()) {
	t.Helper()
	r, err := server.New(server.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(r)
	return strings.TrimPrefix(srv.URL, "http://"), func() {
		srv.Close()
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
}

func tiny(t *testing.T) v1.Image {
	t.Helper()
	img, err := images.Tiny()
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func parse(t *testing.T, ref string) name.Reference {
	t.Helper()
	r, err := name.ParseReference(ref, name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// pull checks every digest of what a reference names.
func pull(t *testing.T, ref string) {
	t.Helper()
	img, err := remote.Image(parse(t, ref), remote.WithContext(t.Context()))
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Image(img); err != nil {
		t.Errorf("%s: %v", ref, err)
	}
}

func TestImagesOutliveTheRegistry(t *testing.T) {
	dir := t.TempDir()
	host, stop := serve(t, dir)
	digest, err := images.Push(t.Context(), host, "a/tiny:v1", tiny(t))
	if err != nil {
		t.Fatal(err)
	}
	index := mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: tiny(t)})
	if err := remote.WriteIndex(parse(t, host+"/a/index:v1"), index); err != nil {
		t.Fatal(err)
	}
	if _, err := images.Push(t.Context(), host, "a/gone:v1", tiny(t)); err != nil {
		t.Fatal(err)
	}
	if err := remote.Delete(parse(t, host+"/a/gone:v1")); err != nil {
		t.Fatal(err)
	}
	stop()

	host, stop = serve(t, dir)
	defer stop()
	pull(t, host+"/a/tiny:v1")
	pull(t, host+"/a/tiny@"+digest)
	if _, err := remote.Index(parse(t, host+"/a/index:v1")); err != nil {
		t.Error(err)
	}
	if _, err := remote.Head(parse(t, host+"/a/gone:v1")); err == nil {
		t.Error("a removed tag is back")
	}
}

func TestHalfAJournalLineIsDropped(t *testing.T) {
	dir := t.TempDir()
	host, stop := serve(t, dir)
	if _, err := images.Push(t.Context(), host, "tiny:v1", tiny(t)); err != nil {
		t.Fatal(err)
	}
	stop()
	path := filepath.Join(dir, "manifests.jsonl")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	half := append(bytes.Clone(whole), whole[:len(whole)/2]...)
	if err := os.WriteFile(path, half, 0o644); err != nil {
		t.Fatal(err)
	}
	for range 2 { // what is appended after the half line must be readable too
		host, stop = serve(t, dir)
		pull(t, host+"/tiny:v1")
		if _, err := images.Push(t.Context(), host, "tiny:v2", tiny(t)); err != nil {
			t.Fatal(err)
		}
		stop()
	}
}

func TestWrongBlobIsRefused(t *testing.T) {
	reg := server.Start(t, server.Options{Dir: t.TempDir()})
	url := "http://" + reg.Host + "/v2/a/blobs/uploads/?digest=sha256:" + strings.Repeat("0", 64)
	resp, err := http.Post(url, "application/octet-stream", strings.NewReader("something else"))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode < 400 {
		t.Errorf("status %d", resp.StatusCode)
	}
	head, err := http.Head("http://" + reg.Host + "/v2/a/blobs/sha256:" + strings.Repeat("0", 64))
	if err != nil {
		t.Fatal(err)
	}
	head.Body.Close()
	if head.StatusCode != http.StatusNotFound {
		t.Errorf("it is served all the same: status %d", head.StatusCode)
	}
}

func TestAccessLogHasOneLineForEachAnswer(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	log, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	reg := server.Start(t, server.Options{Log: log, Wrap: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			switch req.URL.Path {
			case "/v2/teapot":
				w.WriteHeader(http.StatusTeapot)
				_, _ = io.WriteString(w, "short")
			case "/v2/drop":
				panic(http.ErrAbortHandler)
			default:
				next.ServeHTTP(w, req)
			}
		})
	}})
	for _, path := range []string{"/v2/", "/v2/teapot", "/v2/drop"} {
		resp, err := http.Get("http://" + reg.Host + path)
		if err == nil {
			resp.Body.Close()
		}
		if dropped := path == "/v2/drop"; dropped != (err != nil) {
			t.Errorf("%s: %v", path, err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if want := "GET /v2/ 200 0\nGET /v2/teapot 418 5\nGET /v2/drop 200 0\n"; string(got) != want {
		t.Errorf("log:\n%swant:\n%s", got, want)
	}
	if n := reg.Count("GET", "/v2/t"); n != 1 {
		t.Errorf("%d requests counted, want 1", n)
	}
	if n := reg.Count("", ""); n != 3 {
		t.Errorf("%d requests in all, want 3", n)
	}
	reg.Forget()
	if n := reg.Count("", ""); n != 0 {
		t.Errorf("%d requests after Forget", n)
	}
}
