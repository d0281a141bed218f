package imagecache

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/berth-hpc/berth/testdata/faultfs"
)

// TestFaultsOfSave saves over a file and into a layout on a disk that loses
// power, fills up or breaks at every step: what was there before is there, or
// all of what is new.
func TestFaultsOfSave(t *testing.T) {
	before, after := imageOf(t, tarOf(t, file("f", 0o644, "1"))), imageOf(t, tarOf(t, file("f", 0o644, noise(5000, 1))))
	digest, err := after.Digest()
	must(t, err)
	want := filepath.Join(t.TempDir(), "want")
	must(t, Save(context.Background(), after, Destination{FormatOCIArchive, want, ""}, "", nil))
	whole := sumFile(t, want)

	t.Run("file", func(t *testing.T) {
		faultfs.Trial{
			Seeds: 2,
			Prepare: func(t testing.TB, dir string) {
				must(t, os.WriteFile(filepath.Join(dir, "x.tar"), []byte("old"), 0o644))
			},
			Do: func(dir string) error {
				return Save(context.Background(), after, Destination{FormatOCIArchive, filepath.Join(dir, "x.tar"), ""}, "", nil)
			},
			Check: func(t testing.TB, dir string, err error) {
				checkDiskBlame(t, err)
				path := filepath.Join(dir, "x.tar")
				text, readErr := os.ReadFile(path)
				must(t, readErr)
				if isOld := string(text) == "old"; isOld && err == nil || !isOld && !sameSum(t, path, whole) {
					t.Errorf("%d bytes that are neither the old file nor the new one, or not the new one; %v", len(text), err)
				}
			},
		}.Run(t)
	})
	t.Run("layout", func(t *testing.T) {
		faultfs.Trial{
			Seeds: 2,
			Prepare: func(t testing.TB, dir string) {
				must(t, Save(context.Background(), before, Destination{FormatLayout, filepath.Join(dir, "l"), "old"}, "", nil))
			},
			Do: func(dir string) error {
				return Save(context.Background(), after, Destination{FormatLayout, filepath.Join(dir, "l"), "new"}, "", nil)
			},
			Check: func(t testing.TB, dir string, err error) {
				checkDiskBlame(t, err)
				tags := checkLayout(t, filepath.Join(dir, "l"))
				if _, ok := tags["old"]; !ok {
					t.Errorf("what was there is gone: %v", tags)
				}
				if d, ok := tags["new"]; !ok && err == nil || ok && d != digest {
					t.Errorf("the new image is %v: %v", d, err)
				}
			},
		}.Run(t)
	})
}

func sameSum(t testing.TB, path string, want [32]byte) bool {
	t.Helper()
	raw, err := os.ReadFile(path)
	must(t, err)
	return sha256.Sum256(raw) == want
}

// checkLayout wants every image that a layout names to be whole, and returns
// their digests by tag.
func checkLayout(t testing.TB, dir string) map[string]v1.Hash {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(dir, "index.json"))
	must(t, err)
	var index v1.IndexManifest
	must(t, json.Unmarshal(raw, &index))
	tags := map[string]v1.Hash{}
	for _, d := range index.Manifests {
		tags[d.Annotations[refName]] = d.Digest
		manifest := checkBlob(t, dir, d)
		var m v1.Manifest
		must(t, json.Unmarshal(manifest, &m))
		for _, part := range append(m.Layers, m.Config) {
			checkBlob(t, dir, part)
		}
	}
	return tags
}

func checkBlob(t testing.TB, dir string, d v1.Descriptor) []byte {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(dir, "blobs", d.Digest.Algorithm, d.Digest.Hex))
	if err == nil && hashOf(raw) != d.Digest {
		err = errors.New("it has another content")
	}
	if err != nil {
		t.Errorf("blob %v: %v", d.Digest, err)
	}
	return raw
}
