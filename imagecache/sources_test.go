package imagecache

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/imagecache/store"
)

// writeLayout writes img as the only image of an OCI layout.
func writeLayout(t *testing.T, img v1.Image) Reference {
	t.Helper()
	dir := t.TempDir()
	p, err := layout.Write(dir, empty.Index)
	if err == nil {
		err = p.AppendImage(img)
	}
	if err != nil {
		t.Fatal(err)
	}
	return mustParse(t, "oci:"+dir)
}

func gzipped(t testing.TB, raw []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write(raw); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func zstded(t testing.TB, raw []byte) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return w.EncodeAll(raw, nil)
}

// TestLayerFormats pulls one tree in every form that layers come in.
func TestLayerFormats(t *testing.T) {
	raw := tarOf(t, file("f", 0o644, strings.Repeat("content ", 1000)))
	twoGzips := append(gzipped(t, raw[:512]), gzipped(t, raw[512:])...)
	for _, test := range []struct {
		name  string
		layer v1.Layer
	}{
		{"plain", layerOf(raw, raw, types.OCIUncompressedLayer)},
		{"gzip", layerOf(gzipped(t, raw), raw, types.OCILayer)},
		{"docker gzip", layerOf(gzipped(t, raw), raw, types.DockerLayer)},
		{"gzip of two members", layerOf(twoGzips, raw, types.OCILayer)},
		{"zstd", layerOf(zstded(t, raw), raw, types.OCILayerZStd)},
		{"zstd called gzip", layerOf(zstded(t, raw), raw, types.OCILayer)},
		{"padding after the tar", layerOf(append(raw, make([]byte, 4096)...), append(raw, make([]byte, 4096)...), types.OCIUncompressedLayer)},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := newTestRegistry(t)
			im, err := Pull(testContext(t), openStore(t), r.push(t, "x:1", imageOfLayers(t, test.layer)), FetchOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if got := readTree(t, im.Rootfs())["f"]; got != "file 0644 "+strings.Repeat("content ", 1000) {
				t.Errorf("got %.40q", got)
			}
		})
	}
}

func TestDockerSchema2(t *testing.T) {
	raw := tarOf(t, file("f", 0o644, "x"))
	img := mutate.MediaType(mutate.ConfigMediaType(imageOfLayers(t, layerOf(gzipped(t, raw), raw, types.DockerLayer)),
		types.DockerConfigJSON), types.DockerManifestSchema2)
	r := newTestRegistry(t)
	im, err := Pull(testContext(t), openStore(t), r.push(t, "x:1", img), FetchOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if d, _ := img.Digest(); im.Digest().String() != d.String() {
		t.Errorf("digest %v, want %v", im.Digest(), d)
	}
}

// indexOf makes an index of one image per platform, each with its own file,
// and of the attestation that docker buildx adds.
func indexOf(t *testing.T, platforms ...Platform) v1.ImageIndex {
	t.Helper()
	var add []mutate.IndexAddendum
	for _, p := range append(platforms, Platform{OS: "unknown", Architecture: "unknown"}) {
		img := forPlatform(t, imageOf(t, tarOf(t, file("platform", 0o644, p.String()))), p)
		add = append(add, mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{
			Platform: &v1.Platform{OS: p.OS, Architecture: p.Architecture, Variant: p.Variant},
		}})
	}
	return mutate.AppendManifests(empty.Index, add...)
}

func TestIndex(t *testing.T) {
	r := newTestRegistry(t)
	ref := r.pushIndex(t, "x:1", indexOf(t, Platform{"linux", "arm64", "v8"},
		Platform{"linux", "amd64", "v3"}, Platform{"linux", "amd64", ""}, Platform{"linux", "ppc64le", ""}))
	for _, test := range []struct{ ask, want string }{
		{"linux/amd64", "linux/amd64"},
		{"x86_64", "linux/amd64"},
		{"linux/amd64/v3", "linux/amd64/v3"},
		{"linux/amd64/v4", "linux/amd64/v3"}, // runs there, too
		{"linux/amd64/v2", "linux/amd64"},
		{"aarch64", "linux/arm64/v8"},
		{"arm64/v8", "linux/arm64/v8"},
		{"arm64", "linux/arm64/v8"},
		{"linux/ppc64le", "linux/ppc64le"},
	} {
		t.Run(test.ask, func(t *testing.T) {
			p, err := ParsePlatform(test.ask)
			if err != nil {
				t.Fatal(err)
			}
			im, err := Pull(testContext(t), openStore(t), ref, FetchOptions{Platform: p})
			if err != nil {
				t.Fatal(err)
			}
			if got := readTree(t, im.Rootfs())["platform"]; got != "file 0644 "+test.want {
				t.Errorf("got %q", got)
			}
		})
	}
	t.Run("none", func(t *testing.T) {
		_, err := Resolve(testContext(t), ref, Platform{"linux", "riscv64", ""}, Network{})
		if err == nil || fault.Of(err) != fault.User || !strings.Contains(err.Error(), "linux/arm64/v8, linux/amd64/v3") ||
			strings.Contains(err.Error(), "unknown") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("one request", func(t *testing.T) {
		r.gets.Store(0)
		if _, err := Resolve(testContext(t), ref, HostPlatform(), Network{}); err != nil || r.gets.Load() != 1 {
			t.Errorf("%d requests, %v", r.gets.Load(), err)
		}
	})
}

func TestManifestOfAnotherPlatform(t *testing.T) {
	r := newTestRegistry(t)
	ref := r.push(t, "x:1", forPlatform(t, imageOf(t, tarOf(t, file("f", 0o644, "x"))), Platform{"linux", "s390x", ""}))
	_, err := Pull(testContext(t), openStore(t), ref, FetchOptions{Platform: Platform{"linux", "amd64", ""}})
	if err == nil || fault.Of(err) != fault.User || !strings.Contains(err.Error(), "the image is for linux/s390x") {
		t.Errorf("got %v", err)
	}
}

// TestHeldImageOfAnotherPlatform: it is not given to somebody who needs it for
// this machine, although the digest is the same.
func TestHeldImageOfAnotherPlatform(t *testing.T) {
	r := newTestRegistry(t)
	ref := r.push(t, "x:1", forPlatform(t, imageOf(t, tarOf(t, file("f", 0o644, "x"))), Platform{"linux", "s390x", ""}))
	s := openStore(t)
	im, err := Pull(testContext(t), s, ref, FetchOptions{Platform: Platform{"linux", "s390x", ""}})
	must(t, err)
	for _, ref := range []Reference{ref, mustParse(t, r.host+"/x@"+im.Digest().String())} {
		_, err = Pull(testContext(t), s, ref, FetchOptions{})
		if fault.Of(err) != fault.User || !strings.Contains(err.Error(), "the image is for linux/s390x") {
			t.Errorf("%v: %v", ref, err)
		}
	}
}

func TestLayout(t *testing.T) {
	dir := t.TempDir()
	p, err := layout.Write(dir, empty.Index)
	if err != nil {
		t.Fatal(err)
	}
	one := imageOf(t, tarOf(t, file("f", 0o644, "one")))
	two := imageOf(t, tarOf(t, file("f", 0o644, "two")))
	for tag, img := range map[string]v1.Image{"one": one, "registry.site/team/x:two": two} {
		if err := p.AppendImage(img, layout.WithAnnotations(map[string]string{refName: tag})); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.AppendIndex(indexOf(t, HostPlatform()), layout.WithAnnotations(map[string]string{refName: "many"})); err != nil {
		t.Fatal(err)
	}
	digestTwo, _ := two.Digest()
	for suffix, want := range map[string]string{":one": "one", ":two": "two", "@" + digestTwo.String(): "two"} {
		im, err := Pull(testContext(t), openStore(t), mustParse(t, "oci:"+dir+suffix), FetchOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if got := readTree(t, im.Rootfs())["f"]; got != "file 0644 "+want {
			t.Errorf("%s: got %q", suffix, got)
		}
	}
	if im, err := Pull(testContext(t), openStore(t), mustParse(t, "oci:"+dir+":many"), FetchOptions{}); err != nil {
		t.Error(err)
	} else if got := readTree(t, im.Rootfs())["platform"]; got != "file 0644 "+HostPlatform().String() {
		t.Errorf("index in a layout: %q", got)
	}
	for _, bad := range []string{"", ":three"} {
		_, err := Resolve(testContext(t), mustParse(t, "oci:"+dir+bad), Platform{}, Network{})
		if fault.Of(err) != fault.User || !strings.Contains(fault.Remedy(err), "one") {
			t.Errorf("%q: %v, remedy %q", bad, err, fault.Remedy(err))
		}
	}
	_, err = Resolve(testContext(t), mustParse(t, "oci:"+t.TempDir()), Platform{}, Network{})
	if fault.Of(err) != fault.User || !strings.Contains(err.Error(), "not an OCI layout") {
		t.Errorf("got %v", err)
	}
}

// dockerSave writes what docker save writes: plain layers, the second one a
// symbolic link to the first, as old versions do for layers that repeat.
func dockerSave(t *testing.T, compress bool) string {
	t.Helper()
	raw := tarOf(t, file("f", 0o644, "saved"))
	config := &v1.ConfigFile{
		OS: "linux", Architecture: HostPlatform().Architecture,
		RootFS: v1.RootFS{Type: "layers", DiffIDs: []v1.Hash{hashOf(raw), hashOf(raw)}},
	}
	configRaw, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := json.Marshal([]archiveEntry{{Config: "c.json", RepoTags: []string{"site/tool:1"}, Layers: []string{"1/layer.tar", "2/layer.tar"}}})
	if err != nil {
		t.Fatal(err)
	}
	if compress {
		raw = gzipped(t, raw)
	}
	all := tarOf(t, file("1/layer.tar", 0o644, string(raw)), symlink("2/layer.tar", "../1/layer.tar"),
		file("c.json", 0o644, string(configRaw)), file("manifest.json", 0o644, string(manifest)))
	path := filepath.Join(t.TempDir(), "saved.tar")
	if err := os.WriteFile(path, all, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestDockerArchive(t *testing.T) {
	var digests []store.Digest
	for _, compress := range []bool{false, true} {
		for _, tag := range []string{"", ":site/tool:1", ":1", ":tool:1"} {
			im, err := Pull(testContext(t), openStore(t), mustParse(t, "docker-archive:"+dockerSave(t, compress)+tag), FetchOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if got := readTree(t, im.Rootfs())["f"]; got != "file 0644 saved" {
				t.Errorf("got %q", got)
			}
			digests = append(digests, im.Digest())
		}
	}
	for _, d := range digests {
		if d != digests[0] {
			t.Errorf("one image has several digests: %v", digests)
		}
	}
	_, err := Resolve(testContext(t), mustParse(t, "docker-archive:"+dockerSave(t, false)+":2"), Platform{}, Network{})
	if fault.Of(err) != fault.User || !strings.Contains(fault.Remedy(err), "site/tool:1") {
		t.Errorf("got %v, remedy %q", err, fault.Remedy(err))
	}
}

// TestDockerArchiveOfAnotherTool reads what go-containerregistry writes.
func TestDockerArchiveOfAnotherTool(t *testing.T) {
	raw := tarOf(t, file("f", 0o644, "x"))
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(raw)), nil })
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "a.tar")
	r := newTestRegistry(t)
	if err := tarball.WriteToFile(path, r.tag(t, "x:1"), imageOfLayers(t, layer)); err != nil {
		t.Fatal(err)
	}
	im, err := Pull(testContext(t), openStore(t), mustParse(t, "docker-archive:"+path), FetchOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got := readTree(t, im.Rootfs())["f"]; got != "file 0644 x" {
		t.Errorf("got %q", got)
	}
}

func TestBadArchives(t *testing.T) {
	good, err := os.ReadFile(dockerSave(t, false))
	if err != nil {
		t.Fatal(err)
	}
	flipped := bytes.Replace(good, []byte("saved"), []byte("saveD"), 1)
	for name, test := range map[string]struct {
		raw   []byte
		cause string
	}{
		"cut":           {good[:700], "unexpected EOF"},
		"not a save":    {tarOf(t, file("x", 0o644, "")), "manifest.json"},
		"altered layer": {flipped, "layer 1"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "a.tar")
			if err := os.WriteFile(path, test.raw, 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := Pull(testContext(t), openStore(t), mustParse(t, "docker-archive:"+path), FetchOptions{})
			if err == nil || !strings.Contains(err.Error(), test.cause) || fault.Of(err) == fault.Bug || fault.Remedy(err) == "" {
				t.Errorf("got %v, blame %v, remedy %q", err, fault.Of(err), fault.Remedy(err))
			}
		})
	}
	_, err = Resolve(testContext(t), mustParse(t, "docker-archive:/no/such"), Platform{}, Network{})
	if fault.Of(err) != fault.User {
		t.Errorf("missing file: %v", err)
	}
}

// TestNoImages serves what looks like an image and is none.
func TestNoImages(t *testing.T) {
	raw := tarOf(t, file("f", 0o644, "x"))
	img := imageOf(t, raw)
	chart := mutate.ConfigMediaType(img, "application/vnd.cncf.helm.config.v1+json")
	config, _ := img.ConfigFile()
	config = config.DeepCopy()
	config.RootFS.DiffIDs = nil
	unequal, err := mutate.ConfigFile(img, config)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name  string
		img   v1.Image
		cause string
	}{
		{"chart", chart, "no container image but a \"application/vnd.cncf.helm"},
		{"layers without diffIDs", unequal, "1 layers, but its config speaks of 0"},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := newTestRegistry(t)
			_, err := Pull(testContext(t), openStore(t), r.push(t, "x:1", test.img), FetchOptions{})
			if fault.Of(err) != fault.User || !strings.Contains(err.Error(), test.cause) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestSchema1SaysSo(t *testing.T) {
	r := newTestRegistry(t)
	ref := r.push(t, "x:1", imageOf(t))
	r.onRequest(func(w http.ResponseWriter, req *http.Request) bool {
		_, _ = w.Write([]byte(`{"schemaVersion":1,"name":"x","fsLayers":[]}`))
		return true
	})
	_, err := Resolve(testContext(t), ref, HostPlatform(), Network{})
	if fault.Of(err) != fault.User || !strings.Contains(err.Error(), "schema 1") {
		t.Errorf("got %v", err)
	}
}

// TestZstdWindow: a frame of 12 bytes may ask for any amount of memory.
func TestZstdWindow(t *testing.T) {
	for window, ok := range map[byte]bool{17 << 3: true, 18 << 3: false} { // 128 MiB, 256 MiB
		frame := []byte{0x28, 0xb5, 0x2f, 0xfd, 0, window, 1, 0, 0} // one empty raw block
		r, err := decompress(bytes.NewReader(frame))
		if err != nil {
			t.Fatal(err)
		}
		_, err = io.ReadAll(r)
		if (err == nil) != ok {
			t.Errorf("window %#x: %v", window, err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
}
