package imagecache

import (
	"bytes"
	"context"
	"errors"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/imagecache/store"
)

// An originalIndex is an index of images as its source has it. It is a
// v1.ImageIndex, to be written elsewhere.
type originalIndex struct {
	ctx      context.Context //nolint:containedctx // v1.ImageIndex has no place for one
	src      source
	ref      Reference
	raw      []byte
	manifest *v1.IndexManifest
	wrap     func(v1.Image) v1.Image // may be nil
}

// openIndex opens the index that ref names.
func openIndex(ctx context.Context, ref Reference, net Network) (*originalIndex, error) {
	src, raw, m, err := openRoot(ctx, ref, net)
	if err != nil {
		return nil, err
	}
	if len(m.Manifests) == 1 && ref.kind == OCILayout && isIndex(m.Manifests[0].MediaType) {
		// The layout's own index only says where the image's is.
		d, err := store.ParseDigest(m.Manifests[0].Digest.String())
		if err != nil {
			return nil, damaged("its index names no digest: %w", err)
		}
		return readIndex(ctx, src, ref, d)
	}
	if m.Manifests == nil || ref.kind != Registry {
		return nil, &fault.Error{
			Op: "read image", Arg: ref.String(), Blame: fault.User, Err: errors.New("it is one image, not an index of several"),
			Remedy: "leave --all out",
		}
	}
	return indexFrom(ctx, src, ref, raw)
}

func readIndex(ctx context.Context, src source, ref Reference, d store.Digest) (*originalIndex, error) {
	raw, err := src.manifest(ctx, d)
	if err != nil {
		return nil, err
	}
	return indexFrom(ctx, src, ref, raw)
}

func indexFrom(ctx context.Context, src source, ref Reference, raw []byte) (*originalIndex, error) {
	m, err := v1.ParseIndexManifest(bytes.NewReader(raw))
	if err != nil {
		return nil, damaged("its index is not JSON: %w", err)
	}
	return &originalIndex{ctx: ctx, src: src, ref: ref, raw: raw, manifest: m}, nil
}

// MediaType implements v1.ImageIndex.
func (x *originalIndex) MediaType() (types.MediaType, error) {
	if x.manifest.MediaType != "" {
		return x.manifest.MediaType, nil
	}
	return types.OCIImageIndex, nil
}

// Digest implements v1.ImageIndex.
func (x *originalIndex) Digest() (v1.Hash, error) { return hashOf(x.raw), nil }

// Size implements v1.ImageIndex.
func (x *originalIndex) Size() (int64, error) { return int64(len(x.raw)), nil }

// IndexManifest implements v1.ImageIndex.
func (x *originalIndex) IndexManifest() (*v1.IndexManifest, error) { return x.manifest, nil }

// RawManifest implements v1.ImageIndex.
func (x *originalIndex) RawManifest() ([]byte, error) { return x.raw, nil }

// Image implements v1.ImageIndex.
func (x *originalIndex) Image(h v1.Hash) (v1.Image, error) {
	d, err := store.ParseDigest(h.String())
	if err != nil {
		return nil, err
	}
	im, err := originalFrom(x.ctx, x.src, x.ref, d)
	if err != nil || x.wrap == nil {
		return im, err
	}
	return x.wrap(im), nil
}

// ImageIndex implements v1.ImageIndex.
func (x *originalIndex) ImageIndex(h v1.Hash) (v1.ImageIndex, error) {
	d, err := store.ParseDigest(h.String())
	if err != nil {
		return nil, err
	}
	inner, err := readIndex(x.ctx, x.src, x.ref, d)
	if err != nil {
		return nil, err
	}
	inner.wrap = x.wrap
	return inner, nil
}
