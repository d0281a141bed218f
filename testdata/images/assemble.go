package images

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// A step is a layer with what the image's history says about it.
type step struct {
	layer v1.Layer
	by    string
}

// assemble puts steps on top of parent (nil for none) as an OCI image for
// this machine's architecture, with cfg as its whole configuration.
func assemble(parent v1.Image, cfg v1.Config, created time.Time, steps ...step) (v1.Image, error) {
	img := parent
	if img == nil {
		img = mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	}
	at := v1.Time{Time: created.UTC().Truncate(time.Second)}
	var adds []mutate.Addendum
	for _, s := range steps {
		adds = append(adds, mutate.Addendum{
			Layer: s.layer, MediaType: types.OCILayer,
			History: v1.History{Created: at, CreatedBy: s.by},
		})
	}
	img, err := mutate.Append(img, adds...)
	if err != nil {
		return nil, fmt.Errorf("append layers: %w", err)
	}
	cf, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	cf = cf.DeepCopy()
	cf.Config, cf.Created = cfg, at
	cf.OS, cf.Architecture = "linux", runtime.GOARCH
	return mutate.ConfigFile(img, cf)
}

// WriteLayout writes img as an OCI layout in dir, under tag. A layout that
// is there already gets one more image.
func WriteLayout(dir, tag string, img v1.Image) error {
	at, err := layout.FromPath(dir)
	if err != nil {
		if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
			return err
		}
		if at, err = layout.Write(dir, empty.Index); err != nil {
			return fmt.Errorf("begin an OCI layout: %w", err)
		}
	}
	named := layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": tag})
	if err := at.AppendImage(img, named); err != nil {
		return fmt.Errorf("write an OCI layout: %w", err)
	}
	return readable(dir)
}

// readable opens a layout to every user; the library keeps blobs to their
// writer. Tests that ordinary users run share what root built.
func readable(dir string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			return os.Chmod(path, 0o755)
		}
		return os.Chmod(path, 0o644)
	})
}

// ReadLayout opens the image with that tag in the OCI layout dir. Layers are
// read from there when they are used.
func ReadLayout(dir, tag string) (v1.Image, error) {
	at, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		return nil, fmt.Errorf("read an OCI layout: %w", err)
	}
	index, err := at.IndexManifest()
	if err != nil {
		return nil, err
	}
	for _, d := range index.Manifests {
		if d.Annotations["org.opencontainers.image.ref.name"] == tag {
			return at.Image(d.Digest)
		}
	}
	return nil, fmt.Errorf("no image is tagged %q in %s", tag, dir)
}
