package imagecache

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/berth-hpc/berth/imagecache/store"
)

// An Original is an image as its registry, layout or archive has it, layers
// and all: a store keeps what they give, not the layers themselves. Layers are
// read from there when somebody reads them, verified, and never touch the disk.
// It is a v1.Image, to be written elsewhere.
type Original struct {
	v1.Image
	ref Reference
}

// OpenOriginal opens the image d that ref leads to; a zero d asks what ref
// stands for. The context has to last as long as the image is used.
func OpenOriginal(ctx context.Context, ref Reference, d store.Digest, platform Platform, net Network) (*Original, error) {
	o, err := openOriginal(ctx, ref, d, orHost(platform), net)
	return o, imageFault("open", ref, err)
}

func openOriginal(ctx context.Context, ref Reference, d store.Digest, platform Platform, net Network) (*Original, error) {
	src, d, err := openAt(ctx, ref, d, platform, net)
	if err != nil {
		return nil, err
	}
	return originalFrom(ctx, src, ref, d)
}

// openAt opens what ref leads to, with the digest of the image that is meant: d,
// or for a zero d what ref stands for.
func openAt(ctx context.Context, ref Reference, d store.Digest, platform Platform, net Network) (source, store.Digest, error) {
	src, err := openSource(ctx, ref, net)
	if err == nil && d.IsZero() {
		d, err = resolve(ctx, src, platform)
	}
	return src, d, err
}

func originalFrom(ctx context.Context, src source, ref Reference, d store.Digest) (*Original, error) {
	core := &originalCore{ctx: ctx, src: src}
	var err error
	if core.raw, err = src.manifest(ctx, d); err != nil {
		return nil, err
	}
	if _, err := parseManifest(core.raw); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(core.raw, &core.manifest); err != nil {
		return nil, damaged("its manifest is not JSON: %w", err)
	}
	if core.manifest.Config.Digest.Hex == "" {
		return nil, damaged("%s is an index of images, not an image", d)
	}
	if core.config, err = readBlob(ctx, src, core.manifest.Config, maxConfig); err != nil {
		return nil, err
	}
	if err := core.readDiffIDs(); err != nil {
		return nil, err
	}
	image, err := core.image()
	return &Original{Image: image, ref: ref}, err
}

// originalCore gives go-containerregistry what it makes a v1.Image of.
type originalCore struct {
	ctx      context.Context //nolint:containedctx // v1.Image has no place for one
	src      source
	raw      []byte
	manifest v1.Manifest
	config   []byte
	diffIDs  []v1.Hash
}

func (c *originalCore) readDiffIDs() error {
	config, err := v1.ParseConfigFile(bytes.NewReader(c.config))
	if err != nil {
		return damaged("its config is not JSON: %w", err)
	}
	c.diffIDs = config.RootFS.DiffIDs
	if len(c.diffIDs) != len(c.manifest.Layers) {
		return damaged("it has %d layers, but its config speaks of %d", len(c.manifest.Layers), len(c.diffIDs))
	}
	return nil
}

// image returns the image with its own manifest or, when its layers come
// uncompressed from an archive, with one that names them compressed, as
// registries want them.
func (c *originalCore) image() (v1.Image, error) {
	if slices.ContainsFunc(c.manifest.Layers, func(d v1.Descriptor) bool { return d.Size < 0 }) {
		return partial.UncompressedToImage(uncompressedCore{c})
	}
	return partial.CompressedToImage(c)
}

// RawConfigFile implements partial.CompressedImageCore.
func (c *originalCore) RawConfigFile() ([]byte, error) { return c.config, nil }

// RawManifest implements partial.CompressedImageCore.
func (c *originalCore) RawManifest() ([]byte, error) { return c.raw, nil }

// MediaType implements partial.CompressedImageCore. OCI manifests need not
// name it.
func (c *originalCore) MediaType() (types.MediaType, error) {
	if c.manifest.MediaType != "" {
		return c.manifest.MediaType, nil
	}
	return types.OCIManifestSchema1, nil
}

// LayerByDigest implements partial.CompressedImageCore.
func (c *originalCore) LayerByDigest(h v1.Hash) (partial.CompressedLayer, error) {
	if h == c.manifest.Config.Digest {
		return partial.ConfigLayer(configOnly{c})
	}
	i := slices.IndexFunc(c.manifest.Layers, func(d v1.Descriptor) bool { return d.Digest == h })
	if i < 0 {
		return nil, fmt.Errorf("the image has no layer %s", h)
	}
	return &originalLayer{core: c, desc: c.manifest.Layers[i], diffID: c.diffIDs[i]}, nil
}

// configOnly is what partial.ConfigLayer needs.
type configOnly struct{ *originalCore }

// An originalLayer is one layer where it is stored.
type originalLayer struct {
	core   *originalCore
	desc   v1.Descriptor
	diffID v1.Hash
}

// Digest implements partial.CompressedLayer.
func (l *originalLayer) Digest() (v1.Hash, error) { return l.desc.Digest, nil }

// DiffID implements partial.WithDiffID.
func (l *originalLayer) DiffID() (v1.Hash, error) { return l.diffID, nil }

// Size implements partial.CompressedLayer.
func (l *originalLayer) Size() (int64, error) { return l.desc.Size, nil }

// MediaType implements partial.CompressedLayer.
func (l *originalLayer) MediaType() (types.MediaType, error) { return l.desc.MediaType, nil }

// Descriptor keeps annotations and the like; see partial.Descriptor.
func (l *originalLayer) Descriptor() (*v1.Descriptor, error) { return &l.desc, nil }

// Compressed implements partial.CompressedLayer. The stream ends with an error
// unless it is what the manifest names.
func (l *originalLayer) Compressed() (io.ReadCloser, error) { return l.core.blob(l.desc) }

// blob opens a verified stream, which is resumed where a registry breaks off.
func (c *originalCore) blob(desc v1.Descriptor) (io.ReadCloser, error) {
	var body io.ReadCloser
	var err error
	if registry, ok := c.src.(*registrySource); ok {
		body = &resumed{ctx: c.ctx, src: registry, desc: desc}
	} else if body, err = c.src.blob(c.ctx, desc); err != nil {
		return nil, err
	}
	v, err := verify(body, "layer", desc.Digest, desc.Size)
	if err != nil {
		return nil, errors.Join(err, body.Close())
	}
	return readCloser{v, body.Close}, nil
}

// uncompressedCore is an originalCore whose layers are not compressed.
type uncompressedCore struct{ c *originalCore }

// RawConfigFile implements partial.UncompressedImageCore.
func (u uncompressedCore) RawConfigFile() ([]byte, error) { return u.c.config, nil }

// MediaType implements partial.UncompressedImageCore.
func (u uncompressedCore) MediaType() (types.MediaType, error) {
	return types.DockerManifestSchema2, nil
}

// LayerByDiffID implements partial.UncompressedImageCore.
func (u uncompressedCore) LayerByDiffID(h v1.Hash) (partial.UncompressedLayer, error) {
	i := slices.Index(u.c.diffIDs, h)
	if i < 0 {
		return nil, fmt.Errorf("the image has no layer %s", h)
	}
	return uncompressedLayer{u.c, u.c.manifest.Layers[i], h}, nil
}

// An uncompressedLayer is a layer whose digest is not known yet: it is
// compressed to find out, and again when it is read.
type uncompressedLayer struct {
	core   *originalCore
	desc   v1.Descriptor
	diffID v1.Hash
}

// DiffID implements partial.UncompressedLayer.
func (l uncompressedLayer) DiffID() (v1.Hash, error) { return l.diffID, nil }

// MediaType implements partial.UncompressedLayer.
func (l uncompressedLayer) MediaType() (types.MediaType, error) { return types.DockerLayer, nil }

// Uncompressed implements partial.UncompressedLayer.
func (l uncompressedLayer) Uncompressed() (io.ReadCloser, error) { return l.core.blob(l.desc) }
