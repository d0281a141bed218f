package imagecache

import (
	"context"
	"errors"
	"io"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/imagecache/store"
)

// A source serves the manifests and blobs that one reference leads to. What
// it returns is not verified yet, but for manifests asked for by digest.
type source interface {
	// root returns the manifest or index that the reference itself names.
	root(ctx context.Context) ([]byte, error)
	// manifest returns the manifest or index d, verified.
	manifest(ctx context.Context, d store.Digest) ([]byte, error)
	// blob opens a config or a layer, as stored. The caller verifies it.
	blob(ctx context.Context, desc v1.Descriptor) (io.ReadCloser, error)
	// local reports whether blobs are on this machine's disk already.
	local() bool
	// origin is what served the image, for the record.
	origin() string
}

func openSource(ref Reference, net Network) (source, error) {
	switch ref.kind {
	case Registry:
		return newRegistrySource(ref, net)
	case OCILayout:
		return newLayoutSource(ref)
	case DockerArchive:
		return newArchiveSource(ref)
	default:
		return nil, &fault.Error{
			Op: "open image", Arg: ref.path, Blame: fault.User,
			Remedy: "push it to a registry, or save it as an archive and write docker-archive:FILE",
			Err:    errors.New("images given by path are not supported yet for this command"),
		}
	}
}
