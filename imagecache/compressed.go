package imagecache

import (
	"context"

	"github.com/berth-hpc/berth/imagecache/store"
)

// Compressed returns how many bytes the layers of image d take, as its
// manifest in ref's repository says; a transfer of another size fails. Only
// that manifest is asked for.
func Compressed(ctx context.Context, ref Reference, d store.Digest, net Network) (int64, error) {
	bytes, err := compressed(ctx, ref, d, net)
	return bytes, imageFault("pull", ref, err) // in the words of a pull that is refused
}

func compressed(ctx context.Context, ref Reference, d store.Digest, net Network) (int64, error) {
	src, err := openSource(ctx, ref, net)
	if err != nil {
		return 0, err
	}
	raw, err := src.manifest(ctx, d)
	if err != nil {
		return 0, err
	}
	m, err := parseManifest(raw)
	if err != nil {
		return 0, err
	}
	if m.Config == nil {
		return 0, damaged("%s is an index of images, not an image", d)
	}
	var bytes int64
	for _, l := range m.Layers {
		if l.Size < 0 || bytes+l.Size < bytes {
			return 0, damaged("its layers have impossible sizes")
		}
		bytes += l.Size
	}
	return bytes, nil
}
