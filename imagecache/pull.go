package imagecache

import (
	"context"

	"github.com/berth-hpc/berth/imagecache/store"
)

// Pull makes sure that the image ref names is in s, a store of the caller's
// own, and returns it. If it is there already, that costs at most the one
// request of Resolve; with a digest in ref, none. Of any number of processes
// that pull one image at once, one transfers and converts it; the others wait.
func Pull(ctx context.Context, s *store.Store, ref Reference, opts FetchOptions) (store.Image, error) {
	panic("soon")
}
