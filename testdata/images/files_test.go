package images_test

import (
	"archive/tar"
	"errors"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/berth-hpc/berth/testdata/images"
	"github.com/berth-hpc/berth/testdata/registry/server"
)

// entries lists one layer of img as "name type mode uid:gid link".
func entries(t *testing.T, img v1.Image, n int) map[string]tar.Header {
	t.Helper()
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	r, err := layers[n].Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	found := map[string]tar.Header{}
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return found
		}
		if err != nil {
			t.Fatal(err)
		}
		found[h.Name] = *h
	}
}

func digest(t *testing.T, img v1.Image) string {
	t.Helper()
	d, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return d.String()
}

func tiny(t *testing.T) v1.Image {
	t.Helper()
	img, err := images.Tiny()
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func TestFromFilesKeepsOddEntries(t *testing.T) {
	img, err := images.FromFiles(v1.Config{Env: []string{"A=b"}},
		[]images.File{images.Dir("a"), images.Program("a/p", "#!"), images.Text("b/t", "x")},
		[]images.File{
			images.Whiteout("b/t"), images.Opaque("a"), images.Hardlink("h", "a/p"), images.Text("../up", "y"),
			{Name: "dev", Type: tar.TypeChar, Major: 5, Minor: 1, Mode: 0o600},
			{Name: "cap", UID: 3, GID: 4, Xattrs: map[string]string{"security.capability": "z"}},
		})
	if err != nil {
		t.Fatal(err)
	}
	lower, upper := entries(t, img, 0), entries(t, img, 1)
	for name, mode := range map[string]int64{"a/": 0o755, "a/p": 0o755, "b/t": 0o644} {
		if h, ok := lower[name]; !ok || h.Mode != mode {
			t.Errorf("%s: there %v, mode %o, want %o", name, ok, h.Mode, mode)
		}
	}
	for _, name := range []string{"b/.wh.t", "a/.wh..wh..opq", "../up"} {
		if _, ok := upper[name]; !ok {
			t.Errorf("%s is missing", name)
		}
	}
	if h := upper["h"]; h.Typeflag != tar.TypeLink || h.Linkname != "a/p" {
		t.Errorf("h: type %c to %q", h.Typeflag, h.Linkname)
	}
	if h := upper["dev"]; h.Typeflag != tar.TypeChar || h.Devmajor != 5 || h.Devminor != 1 || h.Mode != 0o600 {
		t.Errorf("dev: %+v", h)
	}
	if h := upper["cap"]; h.Uid != 3 || h.Gid != 4 || h.PAXRecords["SCHILY.xattr.security.capability"] != "z" {
		t.Errorf("cap: %+v", h)
	}
	cf, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if cf.OS != "linux" || !slices.Equal(cf.Config.Env, []string{"A=b"}) || len(cf.History) != 2 {
		t.Errorf("config: %+v", cf)
	}
}

func TestSameFilesSameDigest(t *testing.T) {
	if a, b := digest(t, tiny(t)), digest(t, tiny(t)); a != b {
		t.Errorf("%s, then %s", a, b)
	}
}

func TestLayoutKeepsImagesByTag(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "layout")
	other, err := images.FromFiles(v1.Config{}, []images.File{images.Text("x", "y")})
	if err != nil {
		t.Fatal(err)
	}
	for tag, img := range map[string]v1.Image{"one": tiny(t), "two": other} {
		if err := images.WriteLayout(dir, tag, img); err != nil {
			t.Fatal(err)
		}
	}
	got, err := images.ReadLayout(dir, "one")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := digest(t, got), digest(t, tiny(t)); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if mt, err := got.MediaType(); err != nil || mt != types.OCIManifestSchema1 {
		t.Errorf("media type %s, %v", mt, err)
	}
	if _, err := images.ReadLayout(dir, "three"); err == nil || !strings.Contains(err.Error(), "three") {
		t.Errorf("a tag that is not there: %v", err)
	}
}

func TestPushSendsBlobsOnce(t *testing.T) {
	reg := server.Start(t, server.Options{})
	var pushed []string
	for range 2 {
		d, err := images.Push(t.Context(), reg.Host, "group/tiny:v1", tiny(t))
		if err != nil {
			t.Fatal(err)
		}
		pushed = append(pushed, d)
	}
	if want := digest(t, tiny(t)); pushed[0] != want || pushed[1] != want {
		t.Errorf("digests %q, want %s", pushed, want)
	}
	// Two layers and the configuration.
	if n := reg.Count("POST", "/v2/group/tiny/blobs/uploads/"); n != 3 {
		t.Errorf("%d uploads were begun, want 3: %v", n, reg.Requests())
	}
}

func TestDockerArchiveHasTheSameLayers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tiny.tar")
	if err := images.WriteDockerArchive(path, "tiny:v1", tiny(t)); err != nil {
		t.Fatal(err)
	}
	got, err := tarball.ImageFromPath(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	gotFile, err := got.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	wantFile, err := tiny(t).ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(wantFile.RootFS, gotFile.RootFS); diff != "" {
		t.Error(diff)
	}
}
