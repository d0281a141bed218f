package imagecache

import (
	"archive/tar"
	"bytes"
	"context"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// testTimeout bounds every test that could hang.
const testTimeout = 60 * time.Second

func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	t.Cleanup(cancel)
	return ctx
}

// testRegistry is a real registry on a loopback port that counts requests.
type testRegistry struct {
	host string
	gets atomic.Int64
	// intercept may answer a request itself by returning true.
	intercept atomic.Pointer[func(http.ResponseWriter, *http.Request) bool]
}

func newTestRegistry(t *testing.T) *testRegistry {
	t.Helper()
	r := &testRegistry{}
	inner := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r.gets.Add(1)
		if f := r.intercept.Load(); f != nil && (*f)(w, req) {
			return
		}
		inner.ServeHTTP(w, req)
	}))
	srv.Config.ErrorLog = log.New(io.Discard, "", 0) // HTTPS is tried first
	srv.Start()
	t.Cleanup(srv.Close)
	r.host = strings.TrimPrefix(srv.URL, "http://")
	return r
}

func (r *testRegistry) onRequest(f func(http.ResponseWriter, *http.Request) bool) {
	r.intercept.Store(&f)
}

// push stores img under repository:tag and returns its reference.
func (r *testRegistry) push(t *testing.T, repoTag string, img v1.Image) Reference {
	t.Helper()
	if err := remote.Write(r.tag(t, repoTag), img, remote.WithJobs(1)); err != nil {
		t.Fatal(err)
	}
	r.gets.Store(0)
	return mustParse(t, r.host+"/"+repoTag)
}

func (r *testRegistry) pushIndex(t *testing.T, repoTag string, idx v1.ImageIndex) Reference {
	t.Helper()
	if err := remote.WriteIndex(r.tag(t, repoTag), idx); err != nil {
		t.Fatal(err)
	}
	r.gets.Store(0)
	return mustParse(t, r.host+"/"+repoTag)
}

func (r *testRegistry) tag(t *testing.T, repoTag string) name.Tag {
	t.Helper()
	tag, err := name.NewTag(r.host + "/" + repoTag)
	if err != nil {
		t.Fatal(err)
	}
	return tag
}

func mustParse(t testing.TB, s string) Reference {
	t.Helper()
	ref, err := ParseReference(s)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

// tarOf makes a layer's tar. A header without a mode gets one, one without a
// type is a regular file with the content given.
func tarOf(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := e.Header
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		h.Size = int64(len(e.content))
		if h.ModTime.IsZero() && h.Typeflag != tar.TypeXGlobalHeader {
			h.ModTime = time.Unix(1_600_000_000, 0)
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, e.content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

type entry struct {
	tar.Header
	content string
}

func file(name string, mode int64, content string) entry {
	return entry{tar.Header{Name: name, Mode: mode}, content}
}

func dir(name string, mode int64) entry {
	return entry{tar.Header{Name: name, Mode: mode, Typeflag: tar.TypeDir}, ""}
}

func symlink(name, target string) entry {
	return entry{tar.Header{Name: name, Linkname: target, Typeflag: tar.TypeSymlink, Mode: 0o777}, ""}
}

func hardlink(name, target string) entry {
	return entry{tar.Header{Name: name, Linkname: target, Typeflag: tar.TypeLink}, ""}
}

func whiteout(name string) entry { return file(name, 0o644, "") }

// testLayer is a layer whose parts tests can choose freely, right or wrong.
type testLayer struct {
	v1.Layer
	diffID v1.Hash
}

// DiffID implements v1.Layer.
func (l testLayer) DiffID() (v1.Hash, error) { return l.diffID, nil }

// layerOf returns a layer stored as given, that unpacks to plain.
func layerOf(stored, plain []byte, media types.MediaType) v1.Layer {
	return testLayer{static.NewLayer(stored, media), hashOf(plain)}
}

// imageOf makes an image of uncompressed layers.
func imageOf(t testing.TB, tars ...[]byte) v1.Image {
	t.Helper()
	var layers []v1.Layer
	for _, raw := range tars {
		layers = append(layers, layerOf(raw, raw, types.OCIUncompressedLayer))
	}
	return imageOfLayers(t, layers...)
}

func imageOfLayers(t testing.TB, layers ...v1.Layer) v1.Image {
	t.Helper()
	img, err := mutate.AppendLayers(mutate.MediaType(mutate.ConfigMediaType(empty.Image, types.OCIConfigJSON), types.OCIManifestSchema1), layers...)
	if err != nil {
		t.Fatal(err)
	}
	return forPlatform(t, img, HostPlatform())
}

func forPlatform(t testing.TB, img v1.Image, p Platform) v1.Image {
	t.Helper()
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config = config.DeepCopy()
	config.OS, config.Architecture, config.Variant = p.OS, p.Architecture, p.Variant
	config.Config.Env = []string{"PATH=/usr/bin", "NAME=with = and spaces"}
	config.Config.WorkingDir = "/work"
	config.Config.Labels = map[string]string{"a": "b"}
	if img, err = mutate.ConfigFile(img, config); err != nil {
		t.Fatal(err)
	}
	return img
}
