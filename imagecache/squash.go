package imagecache

import (
	"context"
	"io"
)

// A LayerSource opens the tar streams of an image's layers, lowest first.
type LayerSource interface {
	// Len returns the number of layers.
	Len() int
	// Open returns the uncompressed tar stream of layer i, waiting for it to
	// arrive. The stream ends with an error unless its content matched
	// its digests, so read it to the end before believing any of it.
	Open(ctx context.Context, i int) (io.ReadCloser, error)
}

// A Converter makes one squashfs file out of layers, under the rules of
// store.PolicyVersion. Every implementation gives the same tree for
// the same layers, whoever runs it.
type Converter interface {
	// Name is recorded with the image.
	Name() string
	// Convert writes the squashfs file to out and may use the empty folder
	// work, which it leaves empty. On error out may hold garbage.
	Convert(ctx context.Context, layers LayerSource, work, out string, progress ProgressFunc) error
}
