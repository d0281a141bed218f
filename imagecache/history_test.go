package imagecache

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"

	"github.com/berth-hpc/berth/imagecache/store"
)

// withConfig is img with a config that edit has changed.
func withConfig(t *testing.T, img v1.Image, edit func(*v1.ConfigFile)) v1.Image {
	t.Helper()
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config = config.DeepCopy()
	edit(config)
	if img, err = mutate.ConfigFile(img, config); err != nil {
		t.Fatal(err)
	}
	return img
}

func twoLayers(t *testing.T) v1.Image {
	t.Helper()
	return imageOf(t, tarOf(t, file("a", 0o644, "first")), tarOf(t, file("b", 0o644, "second")))
}

func stepLayer(t *testing.T, img v1.Image, i int) *store.Layer {
	t.Helper()
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	digest, err1 := layers[i].Digest()
	diffID, err2 := layers[i].DiffID()
	size, err3 := layers[i].Size()
	if err1 != nil || err2 != nil || err3 != nil {
		t.Fatal(err1, err2, err3)
	}
	return &store.Layer{Digest: digestOrNone(digest.String()), DiffID: digestOrNone(diffID.String()), Compressed: size}
}

// TestHistory: what an image says of its making is told the same before and
// after it was pulled, and the pull keeps it.
func TestHistory(t *testing.T) {
	built := time.Date(2024, 5, 6, 7, 8, 9, 0, time.UTC)
	img := withConfig(t, twoLayers(t), func(c *v1.ConfigFile) {
		c.Author, c.Created = "Ada <ada@example.org>", v1.Time{Time: built}
		c.Config.Labels = map[string]string{baseName: "docker.io/library/debian:12"}
		c.History = []v1.History{
			{CreatedBy: "ADD rootfs.tar /", Created: v1.Time{Time: built}},
			{CreatedBy: "ENV A=b", EmptyLayer: true, Author: "Bob"},
			{CreatedBy: "RUN make", Comment: "buildkit"},
		}
	})
	img = mutate.Annotations(img, map[string]string{baseDigest: someDigest}).(v1.Image)
	reg := newTestRegistry(t)
	ref := reg.push(t, "x:1", img)
	d, err := Describe(testContext(t), ref, store.Digest{}, Platform{}, Network{})
	if err != nil {
		t.Fatal(err)
	}
	want := &store.History{
		Author: "Ada <ada@example.org>", Built: built, Base: "docker.io/library/debian:12", BaseDigest: digestOrNone(someDigest),
		Steps: []store.Step{
			{Layer: stepLayer(t, img, 0), Command: "ADD rootfs.tar /", Built: built},
			{Command: "ENV A=b", Author: "Bob"},
			{Layer: stepLayer(t, img, 1), Command: "RUN make", Comment: "buildkit"},
		},
	}
	if diff := cmp.Diff(want, d.History, cmp.AllowUnexported(store.Digest{})); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	images, err := store.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	pulled, err := Pull(testContext(t), images, ref, FetchOptions{})
	if err != nil {
		t.Fatal(err)
	}
	record, err := pulled.Record()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, record.History, cmp.AllowUnexported(store.Digest{})); diff != "" {
		t.Errorf("after the pull: -want +got:\n%s", diff)
	}
}

// TestOddHistories: whatever an image says of its making, it can be pulled, and
// what is kept of it is bounded.
func TestOddHistories(t *testing.T) {
	bare := func(img v1.Image) []store.Step {
		return []store.Step{{Layer: stepLayer(t, img, 0)}, {Layer: stepLayer(t, img, 1)}}
	}
	for _, test := range []struct {
		name  string
		edit  func(*v1.ConfigFile)
		steps func(v1.Image) []store.Step // nil if nothing is kept
	}{
		{"none", func(c *v1.ConfigFile) { c.History = nil }, bare},
		{"of other layers", func(c *v1.ConfigFile) { c.History = c.History[:1] }, bare},
		{"without end", func(c *v1.ConfigFile) {
			for range 100_000 {
				c.History = append(c.History, v1.History{EmptyLayer: true})
			}
		}, bare},
		{"of many words", func(c *v1.ConfigFile) {
			for range 300 {
				c.History = append(c.History, v1.History{EmptyLayer: true, CreatedBy: strings.Repeat("\x1b", 2000)})
			}
		}, bare},
		{"of one long word", func(c *v1.ConfigFile) { c.History[0].CreatedBy = strings.Repeat("é", 1<<20) }, func(img v1.Image) []store.Step {
			steps := bare(img)
			steps[0].Command = strings.Repeat("é", maxHistoryText/2) + "…"
			return steps
		}},
		{"in a year that JSON has not", func(c *v1.ConfigFile) {
			c.Created.Time = time.Date(9999, 12, 31, 23, 59, 59, 0, time.FixedZone("", -23*3600))
		}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			img := withConfig(t, twoLayers(t), func(c *v1.ConfigFile) {
				c.History = []v1.History{{}, {}}
				test.edit(c)
			})
			images, err := store.Open(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			pulled, err := Pull(testContext(t), images, newTestRegistry(t).push(t, "x:1", img), FetchOptions{})
			if err != nil {
				t.Fatal(err)
			}
			record, err := pulled.Record()
			if err != nil {
				t.Fatal(err)
			}
			if (record.History == nil) != (test.steps == nil) {
				t.Fatalf("%+v", record.History)
			}
			if test.steps != nil {
				if diff := cmp.Diff(test.steps(img), record.History.Steps, cmp.AllowUnexported(store.Digest{})); diff != "" {
					t.Errorf("-want +got:\n%s", diff)
				}
			}
			raw, err := os.ReadFile(filepath.Join(pulled.Dir(), store.RecordName))
			if err != nil || len(raw) > maxHistory+64<<10 || !json.Valid(raw) {
				t.Errorf("%d bytes, %v", len(raw), err)
			}
		})
	}
}

// TestManyLayers: layers alone can be more than a record takes, where a site
// allows so many.
func TestManyLayers(t *testing.T) {
	im := &image{config: &v1.ConfigFile{Author: "Ada"}, layers: make([]v1.Descriptor, 10_000)}
	im.config.RootFS.DiffIDs = make([]v1.Hash, len(im.layers))
	if h := im.history(); h != nil {
		t.Errorf("%d steps are kept", len(h.Steps))
	}
}
