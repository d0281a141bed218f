package imagecache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	"github.com/apex/log"
	"github.com/apex/log/handlers/discard"
)

// A LayerSource opens the tar streams of an image's layers, lowest first.
type LayerSource interface {
	// Len returns the number of layers.
	Len() int
	// Open returns the uncompressed tar stream of layer i, waiting for it to
	// arrive. The stream ends with an error unless its content matched
	// its digests, so read it to the end before believing any of it. A
	// layer is opened once.
	Open(ctx context.Context, i int) (io.ReadCloser, error)
}

// A Converter makes one squashfs file out of layers, under the rules of
// store.PolicyVersion. Every implementation gives the same tree for
// the same layers, whoever runs it.
type Converter interface {
	// Name is recorded with the image.
	Name() string
	// Streams reports whether Convert opens the layers in their order, one
	// at a time, and reads each as it comes. Then they go past the disk.
	Streams() bool
	// Convert writes the squashfs file to out and may use the empty folder
	// work, in which it may leave files. On error out may hold garbage.
	Convert(ctx context.Context, layers LayerSource, work, out string, progress ProgressFunc) error
}

// ConverterNamed returns the Converter whose Name is name, Stream if none is,
// with these limits.
func ConverterNamed(name string, limits Limits) Converter {
	if name == (Umoci{}).Name() {
		return Umoci{Limits: limits}
	}
	return Stream{Limits: limits}
}

// Umoci is the Converter that unpacks the layers into a folder with umoci and
// squashes that with mksquashfs, 4.4 or later.
type Umoci struct {
	// Mksquashfs is the program's path; "" looks in PATH.
	Mksquashfs string
	// Processors is how many of them mksquashfs uses; 0 means all that
	// this process may use.
	Processors int
	Limits     Limits
}

// Name implements Converter.
func (Umoci) Name() string { return "umoci" }

// Streams implements Converter. While one layer is unpacked, others arrive.
func (Umoci) Streams() bool { return false }

// silenceUmoci keeps umoci's warnings, one per file in the worst case, off
// standard error. They go through the one logger of apex/log.
var silenceUmoci = sync.OnceFunc(func() { log.SetHandler(discard.Default) })

// Convert implements Converter.
func (u Umoci) Convert(ctx context.Context, layers LayerSource, work, out string, progress ProgressFunc) error {
	silenceUmoci()
	tree := filepath.Join(work, "rootfs")
	unpacker, err := newUnpacker(tree, u.limits().budget())
	if err != nil {
		return fmt.Errorf("unpack layers: %w", err)
	}
	for i := range layers.Len() {
		if err := unpackLayer(ctx, unpacker, layers, i); err != nil {
			return fmt.Errorf("unpack layer %d of %d: %w", i+1, layers.Len(), err)
		}
	}
	if err := unpacker.finish(); err != nil {
		return fmt.Errorf("unpack layers: %w", err)
	}
	if err := u.squash(ctx, tree, out, progress); err != nil {
		return fmt.Errorf("write squashfs: %w", err)
	}
	return os.RemoveAll(tree)
}

func unpackLayer(ctx context.Context, u *unpacker, layers LayerSource, i int) error {
	stream, err := layers.Open(ctx, i)
	if err != nil {
		return err
	}
	return errors.Join(u.apply(ctx, stream), stream.Close())
}
