package imagecache

import (
	"context"
	"fmt"
	"io"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/imagecache/store"
)

// dockerDirSource is an image in a folder of skopeo's dir: transport, which is
// also podman save's docker-dir: a manifest, and blobs named by their digests
// without the algorithm (containers/image, directory/explanation.md).
type dockerDirSource struct {
	ref Reference
	files
}

func newDockerDirSource(ref Reference) (*dockerDirSource, error) {
	s := &dockerDirSource{ref, folder(ref.path)}
	if _, err := s.root(context.Background()); err != nil {
		return nil, &fault.Error{
			Op: "open", Arg: ref.String(), Blame: fault.User,
			Remedy: "name a folder that skopeo copy or podman save wrote; for a root file system write ./FOLDER",
			Err:    fmt.Errorf("not a folder of dir: %w", err),
		}
	}
	return s, nil
}

func (s *dockerDirSource) local() bool    { return true }
func (s *dockerDirSource) origin() string { return s.ref.path }

func (s *dockerDirSource) root(context.Context) ([]byte, error) {
	return s.small("manifest.json", maxManifest)
}

// manifest returns the only one, or one of those that an index names.
func (s *dockerDirSource) manifest(ctx context.Context, d store.Digest) ([]byte, error) {
	raw, err := s.root(ctx)
	if err != nil || digestOf(raw) == d {
		return raw, err
	}
	if raw, err = s.small(d.Hex()+".manifest.json", maxManifest); err != nil {
		return nil, err
	}
	if got := digestOf(raw); got != d {
		return nil, mismatch("manifest", d.String(), got.String())
	}
	return raw, nil
}

func (s *dockerDirSource) blob(ctx context.Context, desc v1.Descriptor) (io.ReadCloser, error) {
	d, err := store.ParseDigest(desc.Digest.String())
	if err != nil {
		return nil, err
	}
	return s.open(ctx, d.Hex())
}
