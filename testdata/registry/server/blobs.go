package server

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"

	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// A diskBlobs is a registry.BlobHandler on a folder. The one that
// go-containerregistry brings hashes a whole blob before each answer, which
// would be counted as download time by every measurement against this
// registry. Blobs are verified once, when they arrive (by the registry).
type diskBlobs struct{ dir string }

func newDiskBlobs(dir string) (*diskBlobs, error) {
	return &diskBlobs{dir}, makeDir(filepath.Join(dir, "sha256"))
}

func (b *diskBlobs) path(h v1.Hash) string {
	return filepath.Join(b.dir, h.Algorithm, h.Hex)
}

func (b *diskBlobs) Stat(_ context.Context, _ string, h v1.Hash) (int64, error) {
	fi, err := os.Stat(b.path(h))
	if err != nil {
		return 0, notFound(err)
	}
	return fi.Size(), nil
}

func (b *diskBlobs) Get(_ context.Context, _ string, h v1.Hash) (io.ReadCloser, error) {
	f, err := os.Open(b.path(h))
	if err != nil {
		return nil, notFound(err)
	}
	return f, nil
}

func (b *diskBlobs) Put(_ context.Context, _ string, h v1.Hash, rc io.ReadCloser) error {
	defer rc.Close()
	f, err := os.CreateTemp(b.dir, "upload-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // fails once it is renamed
	if _, err := io.Copy(f, rc); err != nil {
		f.Close()
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), b.path(h))
}

func (b *diskBlobs) Delete(_ context.Context, _ string, h v1.Hash) error {
	return notFound(os.Remove(b.path(h)))
}

func notFound(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return registry.ErrNotFound
	}
	return err
}
