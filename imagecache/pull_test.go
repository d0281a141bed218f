package imagecache

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/imagecache/store"
)

func openStore(t *testing.T) *store.Store {
	t.Helper()
	s, err := store.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestPull(t *testing.T) {
	r := newTestRegistry(t)
	img := imageOf(t, tarOf(t, file("bin/tool", 0o755, "1")), tarOf(t, file("bin/tool", 0o755, "2")))
	ref := r.push(t, "team/tool:1", img)
	s := openStore(t)
	var phases []Phase
	im, err := Pull(testContext(t), s, ref, FetchOptions{Version: "v", Progress: func(p Progress) {
		if !slices.Contains(phases, p.Phase) {
			phases = append(phases, p.Phase)
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	if d, _ := img.Digest(); im.Digest().String() != d.String() {
		t.Errorf("digest %v, want %v", im.Digest(), d)
	}
	for _, phase := range []Phase{PhaseResolve, PhasePull, PhaseUnpack, PhaseSquash, PhasePublish} {
		if !slices.Contains(phases, phase) {
			t.Errorf("no progress on %s", phase)
		}
	}
	checkStored(t, im, ref)
	checkNoLeftovers(t, s.Root())
	checkWarm(t, r, s, ref)
}

// checkStored looks at what the store says of the image.
func checkStored(t *testing.T, im store.Image, ref Reference) {
	t.Helper()
	m, err := im.Manifest()
	if err != nil || m.Digest != im.Digest() || m.Config.WorkingDir != "/work" || len(m.Config.Env) != 2 || m.Config.Labels["a"] != "b" {
		t.Errorf("%s: %+v, %v", store.ConfigName, m, err)
	}
	rec, err := im.Record()
	if err != nil || rec.Layers != 2 || rec.Squashed == 0 || rec.Compressed == 0 || rec.Uncompressed == 0 ||
		rec.References[0] != ref.String() || rec.Source != ref.Host() || rec.Policy != store.PolicyVersion ||
		rec.Version != "v" || rec.Converter != "stream" || rec.Seconds["total"] <= 0 || rec.Seconds["squash"] <= 0 || rec.Seconds["pull"] <= 0 {
		t.Errorf("%s: %+v, %v", store.RecordName, rec, err)
	}
}

// checkWarm pulls again: by tag for one request, by digest for none, and under
// another name, which is remembered.
func checkWarm(t *testing.T, r *testRegistry, s *store.Store, ref Reference) {
	t.Helper()
	r.gets.Store(0)
	im, err := Pull(testContext(t), s, ref, FetchOptions{})
	if err != nil || r.gets.Load() != 1 {
		t.Errorf("warm, by tag: %d requests, %v", r.gets.Load(), err)
	}
	pinned := mustParse(t, ref.String()+"@"+im.Digest().String())
	r.gets.Store(0)
	if im, err = Pull(testContext(t), s, pinned, FetchOptions{}); err != nil || r.gets.Load() != 0 {
		t.Errorf("warm, by digest: %d requests, %v", r.gets.Load(), err)
	}
	if rec, _ := im.Record(); !slices.Equal(rec.References, []string{ref.String(), pinned.String()}) {
		t.Errorf("references %q", rec.References)
	}
}

func checkNoLeftovers(t testing.TB, root string) {
	t.Helper()
	for _, dir := range []string{"tmp", "images/.new"} {
		entries, err := os.ReadDir(filepath.Join(root, dir))
		if err != nil || len(entries) > 0 {
			t.Errorf("left in %s: %v, %v", dir, entries, err)
		}
	}
}

// TestWrongBytesAreNotPublished serves images whose parts are not what they
// are named, and wants nothing in the store.
func TestWrongBytesAreNotPublished(t *testing.T) {
	raw := tarOf(t, file("f", 0o644, strings.Repeat("x", 4096)))
	other := tarOf(t, file("f", 0o644, strings.Repeat("y", 4096)))
	good := layerOf(raw, raw, types.OCIUncompressedLayer)
	packed := gzipped(t, raw)
	for _, test := range []struct {
		name  string
		layer v1.Layer
		serve func(http.ResponseWriter, *http.Request) bool
		cause string
	}{
		{"other content", good, serveBlob(t, good, other), "verify layer 1"},
		{"too short", good, serveBlob(t, good, raw[:1024]), "got 1024 bytes, not 5632 bytes as named"},
		{"too long", good, serveBlob(t, good, append(raw, 0)), "verify layer 1"},
		{"wrong diffID", layerOf(packed, other, types.OCILayer), nil, "content of layer 1 is"},
		{"not gzip at all", layerOf([]byte("\x1f\x8bgarbage....."), raw, types.OCILayer), nil, "gzip"},
		{"cut gzip", layerOf(packed[:len(packed)-9], raw, types.OCILayer), nil, "EOF"},
		{"gzip and more", layerOf(append(packed, "more"...), raw, types.OCILayer), nil, "decompress"},
		{"cut zstd", layerOf(zstded(t, raw)[:20], raw, types.OCILayerZStd), nil, "decompress"},
		{"link to nothing", plain(tarOf(t, hardlink("a", "b"))), nil, "unpack \"a\""},
		{"a folder's name twice", plain(tarOf(t, symlink("./", "x"))), nil, "root directory"},
		{"not a tar", layerOf([]byte(strings.Repeat("z", 2048)), []byte(strings.Repeat("z", 2048)), types.OCIUncompressedLayer), nil, "tar"},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := newTestRegistry(t)
			ref := r.push(t, "x:1", imageOfLayers(t, test.layer))
			if test.serve != nil {
				r.onRequest(test.serve)
			}
			s := openStore(t)
			_, err := Pull(testContext(t), s, ref, FetchOptions{})
			if err == nil || !strings.Contains(err.Error(), test.cause) || fault.Remedy(err) == "" {
				t.Errorf("got %v, remedy %q", err, fault.Remedy(err))
			}
			// What the registry sends wrongly may be right the next time.
			want := fault.User
			if test.serve != nil {
				want = fault.Site
			}
			if fault.Of(err) != want {
				t.Errorf("blame %v, want %v", fault.Of(err), want)
			}
			if images, _ := s.List(); len(images) > 0 {
				t.Error("it was published")
			}
			checkNoLeftovers(t, s.Root())
		})
	}
}

// serveBlob answers requests for l with other bytes.
func serveBlob(t *testing.T, l v1.Layer, raw []byte) func(http.ResponseWriter, *http.Request) bool {
	t.Helper()
	d, err := l.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, d.String()) {
			return false
		}
		_, _ = w.Write(raw)
		return true
	}
}

func TestManifestOfAnotherDigest(t *testing.T) {
	r := newTestRegistry(t)
	r.push(t, "x:1", imageOf(t, tarOf(t, file("f", 0o644, "asked for"))))
	img := imageOf(t, tarOf(t, file("f", 0o644, "served")))
	raw, _ := img.RawManifest()
	r.onRequest(func(w http.ResponseWriter, req *http.Request) bool {
		_, _ = w.Write(raw)
		return true
	})
	_, err := Resolve(testContext(t), mustParse(t, r.host+"/x@"+testDigest), HostPlatform(), Network{})
	if err == nil || !strings.Contains(err.Error(), "verify manifest") {
		t.Errorf("got %v", err)
	}
}

func TestBrokenTransferIsBegunAgain(t *testing.T) {
	r := newTestRegistry(t)
	raw := tarOf(t, file("f", 0o644, strings.Repeat("x", 1<<20)))
	l := layerOf(raw, raw, types.OCIUncompressedLayer)
	ref := r.push(t, "x:1", imageOfLayers(t, l))
	var once sync.Once
	r.onRequest(func(w http.ResponseWriter, req *http.Request) (broken bool) {
		if d, _ := l.Digest(); strings.HasSuffix(req.URL.Path, d.String()) {
			once.Do(func() {
				broken = true
				w.Header().Set("Content-Length", "1050624")
				_, _ = w.Write(raw[:4096])
			})
		}
		return broken
	})
	if _, err := Pull(testContext(t), openStore(t), ref, FetchOptions{}); err != nil {
		t.Error(err)
	}
}

func TestDiskFull(t *testing.T) {
	r := newTestRegistry(t)
	ref := r.push(t, "x:1", imageOf(t, tarOf(t, file("f", 0o644, "x"))))
	full := filepath.Join(t.TempDir(), "mksquashfs")
	script := "#!/bin/sh\necho 'Write failed because No space left on device' >&2\nexit 1\n"
	if err := os.WriteFile(full, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	_, err := Pull(testContext(t), openStore(t), ref, FetchOptions{Converter: Umoci{Mksquashfs: full}})
	if fault.Of(err) != fault.Site || !strings.Contains(fault.Remedy(err), "make room") {
		t.Errorf("got %v, remedy %q", err, fault.Remedy(err))
	}
}

// plain is a layer stored without compression.
func plain(raw []byte) v1.Layer { return layerOf(raw, raw, types.OCIUncompressedLayer) }

// TestAlteredLayouts changes a layer of an OCI layout by a bit, and a manifest
// so that it means the same.
func TestAlteredLayouts(t *testing.T) {
	raw := tarOf(t, file("f", 0o644, "content"))
	packed := gzipped(t, raw)
	for name, l := range map[string]v1.Layer{"plain": plain(raw), "gzip": layerOf(packed, raw, types.OCILayer)} {
		t.Run(name, func(t *testing.T) {
			ref := writeLayout(t, imageOfLayers(t, l))
			d, err := Resolve(testContext(t), ref, Platform{}, Network{})
			if err != nil {
				t.Fatal(err)
			}
			blob, _ := l.Digest()
			for _, hex := range []string{d.Hex(), blob.Hex} {
				path := filepath.Join(ref.Path(), "blobs/sha256", hex)
				good, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				bad := append(bytes.Clone(good), ' ')
				if hex == blob.Hex {
					bad = bytes.Clone(good)
					bad[map[string]int{"plain": 512, "gzip": 4}[name]] ^= 1 // the file's content, gzip's time
				}
				s := openStore(t)
				writeFile(t, path, bad)
				if _, err := Pull(testContext(t), s, ref, FetchOptions{}); err == nil || !strings.Contains(err.Error(), "verify") {
					t.Errorf("%s altered: %v, remedy %q", hex, err, fault.Remedy(err))
				}
				writeFile(t, path, good)
				if _, err := Pull(testContext(t), s, ref, FetchOptions{}); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

func writeFile(t testing.TB, path string, raw []byte) {
	t.Helper()
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestRedirectToBlobStore follows a registry that keeps its layers on another
// host, with a private address, and does not take the login there.
func TestRedirectToBlobStore(t *testing.T) {
	r := newTestRegistry(t)
	raw := tarOf(t, file("f", 0o644, "far away"))
	l := plain(raw)
	ref := r.push(t, "x:1", imageOfLayers(t, l))
	login := fixedLogin{"me", "secret"}
	var leaked atomic.Bool
	blobs := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		leaked.Store(leaked.Load() || req.Header.Get("Authorization") != "")
		_, _ = w.Write(raw)
	}))
	t.Cleanup(blobs.Close)
	d, _ := l.Digest()
	auth := basicAuth(login)
	r.onRequest(func(w http.ResponseWriter, req *http.Request) bool {
		if auth(w, req) {
			return true
		}
		if strings.HasSuffix(req.URL.Path, d.String()) {
			http.Redirect(w, req, blobs.URL+"/blob", http.StatusTemporaryRedirect)
			return true
		}
		return false
	})
	im, err := Pull(testContext(t), openStore(t), ref, FetchOptions{Network: Network{Credentials: login}})
	if err != nil {
		t.Fatal(err)
	}
	if got := readTree(t, im.Rootfs())["f"]; got != "file 0644 far away" || leaked.Load() {
		t.Errorf("got %q, login leaked: %v", got, leaked.Load())
	}
}

func TestMksquashfsFailures(t *testing.T) {
	ref := writeLayout(t, imageOf(t, tarOf(t, file("f", 0o644, "x"))))
	for _, test := range []struct{ name, program, cause, remedy string }{
		{"missing", "/no/such/mksquashfs", "no such file", "look at that"},
		{"failing", "/bin/false", "mksquashfs: exit status 1", "squashfs-tools"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := Pull(testContext(t), openStore(t), ref, FetchOptions{Converter: Umoci{Mksquashfs: test.program}})
			if err == nil || fault.Of(err) != fault.Site || !strings.Contains(err.Error(), test.cause) {
				t.Errorf("got %v (%v), remedy %q", err, fault.Of(err), fault.Remedy(err))
			}
		})
	}
}

// TestEndlessBlobIsCutOff: a registry that never stops sending must not fill
// the disk before the digest is looked at.
func TestEndlessBlobIsCutOff(t *testing.T) {
	const size = 1000
	v, err := verify(io.MultiReader(bytes.NewReader(make([]byte, 100*size)), iotest.ErrReader(errors.New("read on"))), "blob", hashOf(nil), size)
	if err != nil {
		t.Fatal(err)
	}
	n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, v, make([]byte, size/2))
	if n > size || fault.Of(err) != fault.Site {
		t.Errorf("%d bytes, %v", n, err)
	}
}
