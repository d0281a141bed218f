package imagecache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"golang.org/x/sys/unix"

	"github.com/berth-hpc/berth/fault"
)

// PhaseSave is an image on its way to a file.
const PhaseSave Phase = "save"

// Save writes im to a file or folder in any format but FormatSquashfs. Nothing
// is seen there until it is complete, and only what to names is replaced: of a
// layout the tag. untagged is the name that an archive of docker's gives to an
// image whose destination has no tag.
func Save(ctx context.Context, im v1.Image, to Destination, untagged string, progress ProgressFunc) error {
	im = &watchedImage{im, ctx, &reporter{f: progress}}
	var err error
	switch to.Format {
	case FormatLayout:
		err = saveLayout(im, to)
	case FormatOCIArchive:
		err = saveFile(to.Path, func(w io.Writer) error { return writeLayoutTar(w, im, to.Tag) })
	case FormatDockerArchive:
		err = saveFile(to.Path, func(w io.Writer) error { return writeDockerArchive(w, im, to.Tag, untagged) })
	default:
		err = fmt.Errorf("save an image as %q", to.Format)
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return saveFault(to, err)
}

// saveFault blames the destination's disk, unless err knows better.
func saveFault(to Destination, err error) error {
	if err == nil {
		return nil
	}
	var f *fault.Error
	blame, remedy := fault.User, "look at the destination's folder: that it exists, its rights, and the disk below it"
	switch {
	case errors.As(err, &f):
		blame, remedy = f.Blame, fault.Remedy(err)
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		blame, remedy = fault.Site, "it was interrupted; start it again. Nothing was changed at the destination"
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT), errors.Is(err, unix.EFBIG):
		blame, remedy = fault.Site, "make room on that disk, or choose another place. Nothing was changed at the destination"
	case !isPath(err):
		blame, remedy = diagnoseNetwork(Reference{}, err)
	}
	return &fault.Error{Op: "save", Arg: to.String(), Blame: blame, Remedy: remedy, Err: err}
}

// saveFile makes a file of what write writes.
func saveFile(path string, write func(io.Writer) error) error {
	out, err := newOutput(path)
	if err != nil {
		return err
	}
	defer out.discard()
	if err := write(out); err != nil {
		return err
	}
	return out.commit()
}

func writeDockerArchive(w io.Writer, im v1.Image, tag, untagged string) error {
	if tag == "" {
		tag = untagged
	} else if !strings.ContainsAny(tag, ":/") {
		repository, _, _ := strings.Cut(untagged, ":")
		tag = repository + ":" + tag
	}
	ref, err := name.NewTag(tag)
	if err != nil {
		return &fault.Error{
			Op: "name image", Arg: quote(tag), Blame: fault.User, Err: errors.New(oneLine(err.Error())),
			Remedy: "give a tag: docker-archive:FILE:NAME:TAG",
		}
	}
	return tarball.Write(ref, im, w)
}

// SaveSquashfs writes the tree in base, the squashfs file of an image of a
// store, to the file path; with changes, as a container with them sees it,
// under the policy of contents. Nothing is seen at path until it is complete.
func SaveSquashfs(ctx context.Context, base *os.File, changes *Changes, path string, limits Limits, progress ProgressFunc) error {
	to := Destination{Format: FormatSquashfs, Path: path}
	out, err := newOutput(path)
	if err != nil {
		return saveFault(to, err)
	}
	defer out.discard()
	if changes == nil {
		err = copyContents(ctx, out.File, base)
	} else {
		err = Stream{Limits: limits}.Convert(ctx, treeLayers{base, *changes}, "", out.procPath(), progress)
	}
	if err == nil {
		err = out.commit()
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return saveFault(to, err)
}

// copyContents shares the blocks where the file system can.
func copyContents(ctx context.Context, to, from *os.File) error {
	if unix.IoctlFileClone(int(to.Fd()), int(from.Fd())) == nil {
		return nil
	}
	const piece = 64 << 20 // copied by the kernel, between two looks at ctx
	for offset := int64(0); ; {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		n, err := io.Copy(to, io.NewSectionReader(from, offset, piece))
		if err != nil || n == 0 {
			return err
		}
		offset += n
	}
}

// treeLayers are an image's tree and what was changed in it, as two layers.
type treeLayers struct {
	base    *os.File
	changes Changes
}

// Len implements LayerSource.
func (t treeLayers) Len() int { return 2 }

// Open implements LayerSource.
func (t treeLayers) Open(ctx context.Context, i int) (io.ReadCloser, error) {
	if i == 1 {
		return t.changes.open()
	}
	info, err := t.base.Stat()
	if err != nil {
		return nil, err
	}
	r, w := io.Pipe()
	go func() { w.CloseWithError(TarSquashfs(ctx, t.base, info.Size(), w)) }()
	return r, nil
}

// A watchedImage tells of its layers being read, and stops with its context.
type watchedImage struct {
	v1.Image
	ctx    context.Context //nolint:containedctx // v1.Image has no place for one
	report *reporter
}

// Layers implements v1.Image.
func (w *watchedImage) Layers() ([]v1.Layer, error) {
	layers, err := w.Image.Layers()
	for i, l := range layers {
		layers[i] = watchedLayer{l, w, i + 1, len(layers)}
	}
	return layers, err
}

type watchedLayer struct {
	v1.Layer
	image     *watchedImage
	n, layers int
}

// Compressed implements v1.Layer.
func (l watchedLayer) Compressed() (io.ReadCloser, error) {
	size, err := l.Size()
	if err != nil {
		return nil, err
	}
	body, err := l.Layer.Compressed()
	if err != nil {
		return nil, err
	}
	p := Progress{Phase: PhaseSave, Layer: l.n, Layers: l.layers, Total: size}
	return readCloser{l.image.report.reader(&cancelled{l.image.ctx, body}, p), body.Close}, nil
}
