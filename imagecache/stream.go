package imagecache

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/berth-hpc/berth/imagecache/merge"
	"github.com/berth-hpc/berth/imagecache/squashfs"
)

// Stream is the Converter that writes the squashfs file while the layers
// arrive. The content of files is compressed straight into it, layer after
// layer from the lowest, in the order of the entries; the names are merged in
// memory and written at the end. Nothing else touches the disk, no program is
// run, and the bytes depend on nothing but the layers.
//
// The content of a file that an upper layer replaces or hides has been written
// by then and stays, without a name. Going from the top down would avoid that,
// but where an entry of an upper layer lands, and what its hard links mean,
// depends on the layers below.
type Stream struct {
	// Workers is how many goroutines compress; 0 means as many as processors
	// may be used, 8 at most.
	Workers int
	Limits  Limits
}

// Name implements Converter.
func (Stream) Name() string { return "stream" }

// Streams implements Converter.
func (Stream) Streams() bool { return true }

// Convert implements Converter. work stays empty.
func (s Stream) Convert(ctx context.Context, layers LayerSource, _, out string, progress ProgressFunc) (err error) {
	f, err := os.OpenFile(out, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	c, err := s.begin(f)
	if err != nil {
		return err
	}
	defer c.image.Close()
	for i := range layers.Len() {
		if err := c.layer(ctx, layers, i); err != nil {
			return fmt.Errorf("convert layer %d of %d: %w", i+1, layers.Len(), err)
		}
	}
	if progress != nil {
		progress(Progress{Phase: PhaseSquash})
	}
	stats, err := c.image.Finish(c.tree.Finish(isDeviceMark))
	if err != nil {
		return fmt.Errorf("write squashfs: %w", err)
	}
	if progress != nil {
		progress(Progress{Phase: PhaseSquash, Done: stats.Total, Total: stats.Total})
	}
	return nil
}

// isDeviceMark reports whether n stands for a device node; see deviceMode.
func isDeviceMark(n *squashfs.Inode) bool { return n.Kind == squashfs.Regular && n.Mode == deviceMode }

// conversion is one run of Stream.
type conversion struct {
	image  *squashfs.Writer
	tree   *merge.Tree
	budget *budget
}

func (s Stream) begin(f *os.File) (*conversion, error) {
	w, err := squashfs.NewWriter(&writeback{File: f}, squashfs.Options{Workers: s.Workers})
	if err != nil {
		return nil, fmt.Errorf("write squashfs: %w", err)
	}
	limits := s.limits()
	return &conversion{image: w, tree: merge.New(limits.Entries), budget: limits.budget()}, nil
}

func (c *conversion) layer(ctx context.Context, layers LayerSource, i int) error {
	stream, err := layers.Open(ctx, i)
	if err != nil {
		return err
	}
	return errors.Join(c.apply(ctx, stream), stream.Close())
}

// apply reads one layer to its end.
func (c *conversion) apply(ctx context.Context, stream io.Reader) error {
	c.tree.NextLayer()
	tr := tar.NewReader(stream)
	content := &cancelled{ctx, tr}
	for {
		h, err := tr.Next()
		if err == io.EOF {
			// Padding may follow the tar; digests are known at the end only.
			_, err = io.Copy(io.Discard, stream)
			return err
		}
		if err == nil {
			err = context.Cause(ctx)
		}
		if err == nil {
			err = c.entry(h, content)
		}
		if err != nil {
			return layerError(ctx, err, stream)
		}
	}
}

// layerError blames the image for an error, unless reading the rest of the
// layer shows that it did not arrive as it is.
func layerError(ctx context.Context, err error, stream io.Reader) error {
	if isOurs(err) || ctx.Err() != nil {
		return err
	}
	if _, rest := io.Copy(io.Discard, stream); rest != nil && isOurs(rest) {
		return rest
	}
	return damaged("%w", err)
}

func (c *conversion) entry(h *tar.Header, content io.Reader) error {
	if !applyPolicy(h) {
		return nil
	}
	if err := c.budget.spend(h); err != nil {
		return err
	}
	n, err := c.tree.Apply(h)
	if err != nil {
		return fmt.Errorf("unpack %s: %w", quote(h.Name), c.budget.ofTree(err))
	}
	if n == nil {
		return nil
	}
	if n.File, err = c.image.AddFile(content, h.Size); err != nil {
		return fmt.Errorf("unpack %s: %w", quote(h.Name), err)
	}
	return nil
}

// cancelled is a reader that ends with its context. Holes are read from
// nowhere, so the stream below does not notice.
type cancelled struct {
	ctx context.Context //nolint:containedctx // lives as long as the reading of one layer
	r   io.Reader
}

// Read implements io.Reader.
func (c *cancelled) Read(p []byte) (int, error) {
	if c.ctx.Err() != nil {
		return 0, context.Cause(c.ctx)
	}
	return c.r.Read(p)
}
