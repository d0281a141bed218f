package imagecache

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/gzip"
	"github.com/opencontainers/umoci/oci/layer"
	"golang.org/x/sys/unix"

	"github.com/berth-hpc/berth/fault"
)

// Changes are what a container changed in its root file system: the upper
// folder of an overlay that was mounted with userxattr, which belongs to the
// caller and which nobody uses meanwhile. They become one layer, made by umoci's
// generator: whiteouts and opaque folders in the way of OCI, all owned by root,
// in the order of the names, without the overlay's own attributes. The same
// changes give the same layer.
type Changes struct {
	Upper string
	// Temp is a folder for the compressed layer, which is a file without a
	// name there.
	Temp string
	// Skip are mount points in Upper that are no changes: folders and empty
	// files, by their path below it.
	Skip []string
	// CreatedBy goes into the image's history.
	CreatedBy string
	// Config changes how the image is run; may be nil.
	Config func(*v1.Config)
	// Privileged opens what WriteTar writes, written by a process that may read
	// what the caller took their own rights on away from; nil where there is
	// no such process. It is used only if there is something of that kind.
	Privileged func(ctx context.Context, upper string) (io.ReadCloser, error)
}

// newest is the time of the last change that can be seen. It stands for the
// image's time of creation, so that the same changes give the same image.
func (c Changes) newest() (time.Time, error) {
	var newest time.Time
	err := filepath.WalkDir(c.Upper, func(_ string, d fs.DirEntry, err error) error {
		if d == nil || err != nil && !errors.Is(err, fs.ErrPermission) {
			return err
		}
		if info, err := d.Info(); err == nil && info.ModTime().After(newest) {
			newest = info.ModTime()
		}
		return nil
	})
	return newest.UTC().Truncate(time.Second), err
}

// check refuses what a layer cannot hold, and removes sockets: they are dead,
// as no process is left that listens, and tar files have no place for them.
// closed says that there is something that the caller may not read.
func (c Changes) check() (closed bool, err error) {
	err = filepath.WalkDir(c.Upper, func(full string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrPermission) {
			closed = true
			return nil
		}
		if d == nil || err != nil {
			return err
		}
		switch name, _ := filepath.Rel(c.Upper, full); {
		case strings.HasPrefix(d.Name(), ".wh."):
			return &fault.Error{
				Op: "save changes", Arg: quote("/" + name), Blame: fault.User, Err: errors.New(`names that begin with ".wh." mark removed files in layers`),
				Remedy: "rename or remove the file in the container",
			}
		case d.Type() == fs.ModeSocket:
			return removeQuietly(full)
		case d.Type().IsRegular(), d.IsDir():
			closed = closed || unix.Access(full, unix.R_OK) != nil
		}
		return nil
	})
	return closed, err
}

// IsEmpty says whether nothing was changed.
func (c Changes) IsEmpty() (bool, error) {
	entries, err := os.ReadDir(c.Upper)
	return len(entries) == 0, err
}

// open starts the generator. The stream is an uncompressed tar file.
func (c Changes) open(ctx context.Context) (io.ReadCloser, error) {
	stream, err := c.generate(ctx)
	if err != nil || len(c.Skip) == 0 {
		return stream, err
	}
	r, w := io.Pipe()
	go func() { w.CloseWithError(skipEntries(w, stream, c.Skip)) }()
	return readCloser{r, func() error { return errors.Join(r.Close(), stream.Close()) }}, nil
}

// skipEntries copies a tar file without what has one of the names, unless it
// has content.
func skipEntries(w io.Writer, r io.Reader, names []string) error {
	in, out := tar.NewReader(r), tar.NewWriter(w)
	for {
		h, err := in.Next()
		if err == io.EOF {
			return out.Close()
		}
		if err != nil {
			return err
		}
		if h.Size == 0 && slices.Contains(names, path.Clean(h.Name)) {
			continue
		}
		if err := out.WriteHeader(h); err != nil {
			return err
		}
		if _, err := io.Copy(out, in); err != nil {
			return err
		}
	}
}

func (c Changes) generate(ctx context.Context) (io.ReadCloser, error) {
	closed, err := c.check()
	switch {
	case err != nil:
		return nil, err
	case closed && c.Privileged != nil:
		return c.Privileged(ctx, c.Upper)
	}
	silenceUmoci()
	return layer.GenerateInsertLayer(c.Upper, ".", false, &layer.RepackOptions{
		OnDiskFormat: layer.OverlayfsRootfs{UserXattr: true, MapOptions: layer.MapOptions{Rootless: true}}, // all owned by root
	}), nil
}

// WriteTar writes the layer, uncompressed, and stops with its context.
func (c Changes) WriteTar(ctx context.Context, w io.Writer) error {
	stream, err := c.open(ctx)
	if err != nil {
		return err
	}
	_, err = io.Copy(w, &cancelled{ctx, stream})
	return errors.Join(err, stream.Close())
}

// A ChangedImage is an image with a container's changes as its topmost layer.
type ChangedImage struct {
	v1.Image
	base  v1.Image
	layer *os.File
}

// Close gives back what the layer takes on disk. The image is not to be used
// after it.
func (c *ChangedImage) Close() { _ = c.layer.Close() }

// AddChanges returns base with the changes as its topmost layer. The caller
// closes the image.
func AddChanges(ctx context.Context, base v1.Image, c Changes) (*ChangedImage, error) {
	file, err := c.pack(ctx)
	if err != nil {
		return nil, fault.Wrap("save the changes in", c.Upper, fault.Site, "look at that folder and the room on its disk", err)
	}
	im, err := c.append(base, file)
	if err != nil {
		file.Close()
		return nil, err
	}
	return &ChangedImage{im, base, file}, nil
}

// pack writes the compressed layer into a file without a name.
func (c Changes) pack(ctx context.Context) (*os.File, error) {
	file, err := os.CreateTemp(c.Temp, ".layer-*")
	if err != nil {
		return nil, err
	}
	if err := errors.Join(os.Remove(file.Name()), c.write(ctx, file)); err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}

func (c Changes) write(ctx context.Context, w io.Writer) error {
	zip := gzip.NewWriter(w)
	if err := c.WriteTar(ctx, zip); err != nil {
		return err
	}
	return zip.Close()
}

func (c Changes) append(base v1.Image, file *os.File) (v1.Image, error) {
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	kind, err := layerTypeFor(base)
	if err != nil {
		return nil, err
	}
	packed, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(io.NewSectionReader(file, 0, info.Size())), nil
	}, tarball.WithMediaType(kind))
	if err != nil {
		return nil, fmt.Errorf("read the layer of changes back: %w", err)
	}
	created, err := c.newest()
	if err != nil {
		return nil, err
	}
	im, err := mutate.Append(base, mutate.Addendum{
		Layer: bareLayer{packed}, MediaType: kind,
		History: v1.History{Created: v1.Time{Time: created}, CreatedBy: c.CreatedBy, Comment: "saved by Berth"},
	})
	if err != nil {
		return nil, err
	}
	return c.configure(im, created)
}

// A bareLayer is described by its digest and size alone: tarball's own
// descriptor has annotations, none of them.
type bareLayer struct{ v1.Layer }

// configure sets the time of creation and what the user wants otherwise.
func (c Changes) configure(im v1.Image, created time.Time) (v1.Image, error) {
	config, err := im.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.Created = v1.Time{Time: created}
	if c.Config != nil {
		c.Config(&config.Config)
	}
	return mutate.ConfigFile(im, config)
}

// layerTypeFor is the type of a gzip layer in an image like base.
func layerTypeFor(base v1.Image) (types.MediaType, error) {
	kind, err := base.MediaType()
	if err == nil && kind == types.DockerManifestSchema2 {
		return types.DockerLayer, nil
	}
	return types.OCILayer, err
}
