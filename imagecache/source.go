package imagecache

import (
	"context"
	"errors"
	"io"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/imagecache/store"
	"github.com/berth-hpc/berth/imagefile"
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

func openSource(ctx context.Context, ref Reference, net Network) (source, error) {
	switch ref.kind {
	case Registry:
		return newRegistrySource(ref, net)
	case OCILayout:
		return newLayoutSource(ref, folder(ref.path))
	case DockerDir:
		return newDockerDirSource(ref)
	case DockerArchive:
		f, err := openTarFile(ctx, ref.path)
		if err != nil {
			return nil, err
		}
		return newArchiveSource(ref, f)
	case OCIArchive:
		f, err := openTarFile(ctx, ref.path)
		if err != nil {
			return nil, err
		}
		return newArchivedLayout(ref, f)
	}
	return openPath(ctx, ref)
}

// openPath finds out what the file or folder is.
func openPath(ctx context.Context, ref Reference) (source, error) {
	kind, err := imagefile.Identify(ref.path)
	if err != nil {
		return nil, err
	}
	switch kind {
	case imagefile.Squashfs, imagefile.SIF:
		return newSquashfsSource(ctx, ref)
	case imagefile.Tree:
		return newFolderSource(ctx, ref)
	case imagefile.OCILayout:
		return newLayoutSource(ref, folder(ref.path))
	case imagefile.DockerDir:
		return newDockerDirSource(ref)
	case imagefile.Archive:
		return openArchive(ctx, ref)
	}
	return nil, &fault.Error{
		Op: "open", Arg: ref.path, Blame: fault.User, Err: errors.New("it is no image"),
		Remedy: "name a squashfs or SIF file, an archive of docker save or podman save, or a folder with a root file system",
	}
}

// openArchive prefers the OCI layout where an archive is both, as Docker's are
// from 25.0 on: then the image has the digest that it has in a registry.
func openArchive(ctx context.Context, ref Reference) (source, error) {
	f, err := openTarFile(ctx, ref.path)
	if err != nil {
		return nil, err
	}
	if _, ok := f.members["oci-layout"]; ok {
		return newArchivedLayout(ref, f)
	}
	return newArchiveSource(ref, f)
}

// archivedLayout is an OCI layout in an archive.
type archivedLayout struct {
	*layoutSource
	spooler
}

func newArchivedLayout(ref Reference, f *tarFile) (source, error) {
	l, err := newLayoutSource(ref, f)
	return archivedLayout{l, f}, err
}

// A spooler is a source whose layers are better read from a copy.
type spooler interface {
	// spool makes the copy in dir, if it is worth it for so many layers.
	spool(ctx context.Context, dir string, layers int) error
	// release removes it.
	release() error
}
