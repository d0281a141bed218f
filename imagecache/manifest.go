package imagecache

import (
	"context"

	"github.com/berth-hpc/berth/imagecache/store"
)

// Resolve returns the digest of the manifest that ref names for platform. An
// index is followed to its manifest. For a registry that serves anonymous
// readers it costs one request.
func Resolve(ctx context.Context, ref Reference, platform Platform, net Network) (store.Digest, error) {
	panic("soon")
}
