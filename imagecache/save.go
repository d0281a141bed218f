package imagecache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/sys/unix"

	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/imagecache/store"
	"github.com/berth-hpc/berth/imagefile"
)

// PhaseSave is an image on its way to a file.
const PhaseSave Phase = "save"

// Save writes im to a file or folder in any format but FormatSquashfs. Nothing
// is seen there until it is complete, and only what to names is replaced: of a
// layout the tag. untagged is the name that an archive of docker's gives to an
// image whose destination has no tag.
func Save(ctx context.Context, im v1.Image, to Destination, untagged string, progress ProgressFunc) error {
	s, err := newSaving(ctx, im, progress)
	if err == nil {
		err = s.save(im, to, untagged)
	}
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return saveFault(to, err)
}

func (s *saving) save(im v1.Image, to Destination, untagged string) error {
	switch to.Format {
	case FormatLayout:
		return s.layout(im, to)
	case FormatOCIArchive:
		return s.file(to.Path, func(w io.Writer) error { return writeLayoutTar(w, im, to.Tag) })
	case FormatDockerArchive:
		return s.file(to.Path, func(w io.Writer) error { return writeDockerArchive(w, im, to.Tag, untagged) })
	}
	return fmt.Errorf("save an image as %q", to.Format)
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
	case errors.Is(err, unix.EIO), errors.Is(err, unix.EROFS), errors.Is(err, unix.ESTALE):
		blame, remedy = fault.Site, "look at the disk below the destination, or choose another place. Nothing was changed there"
	case !isPath(err):
		blame, remedy = diagnoseNetwork(Reference{}, err)
	}
	return &fault.Error{Op: "save", Arg: to.String(), Blame: blame, Remedy: remedy, Err: err}
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
	if im, err = inGzip(im); err != nil {
		return err
	}
	return tarball.Write(ref, im, w)
}

// inGzip returns im with all its layers in gzip. Docker's archives do not say
// how layers are compressed, so tools guess, and some only once.
func inGzip(im v1.Image) (v1.Image, error) {
	layers, err := im.Layers()
	if err != nil {
		return nil, err
	}
	for _, l := range layers {
		switch kind, err := l.MediaType(); {
		case err != nil:
			return nil, err
		case kind != types.OCILayer && kind != types.DockerLayer:
			return partial.UncompressedToImage(recompressed{im})
		}
	}
	return im, nil
}

// recompressed is the core of an image whose layers are compressed anew.
type recompressed struct{ im v1.Image }

// RawConfigFile implements partial.UncompressedImageCore.
func (r recompressed) RawConfigFile() ([]byte, error) { return r.im.RawConfigFile() }

// MediaType implements partial.UncompressedImageCore.
func (r recompressed) MediaType() (types.MediaType, error) { return types.DockerManifestSchema2, nil }

// LayerByDiffID implements partial.UncompressedImageCore.
func (r recompressed) LayerByDiffID(h v1.Hash) (partial.UncompressedLayer, error) {
	l, err := r.im.LayerByDiffID(h)
	return contentOf{l}, err
}

// contentOf is a layer without its digest.
type contentOf struct{ l v1.Layer }

// DiffID implements partial.UncompressedLayer.
func (c contentOf) DiffID() (v1.Hash, error) { return c.l.DiffID() }

// MediaType implements partial.UncompressedLayer.
func (c contentOf) MediaType() (types.MediaType, error) { return types.DockerLayer, nil }

// Uncompressed implements partial.UncompressedLayer.
func (c contentOf) Uncompressed() (io.ReadCloser, error) { return c.l.Uncompressed() }

// SaveSquashfs writes the tree in base, the squashfs file of an image of a
// store, to the file path; with changes, as a container with them sees it,
// under the policy of contents. base may as well be a squashfs or SIF file, or
// a folder, of the user's. config is kept behind it, where Berth finds it
// again. Nothing is seen at path until it is complete.
func SaveSquashfs(ctx context.Context, base *os.File, changes *Changes, config store.Config, path string, limits Limits, progress ProgressFunc) error {
	to := Destination{Format: FormatSquashfs, Path: path}
	out, err := newOutput(path)
	if err != nil {
		return saveFault(to, err)
	}
	defer out.discard()
	tree, err := newTreeLayers(base, changes)
	switch {
	case err != nil:
	case changes == nil && tree.isSquashfs():
		err = copyContents(ctx, out.File, base)
	default:
		err = Stream{Limits: limits}.Convert(ctx, tree, "", out.procPath(), progress)
	}
	if err == nil {
		err = out.appendConfig(config)
	}
	if err == nil {
		err = out.commit()
	}
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return saveFault(to, err)
}

// appendConfig writes a config behind what the file holds.
func (o *output) appendConfig(c store.Config) error {
	if _, err := o.Seek(0, io.SeekEnd); err != nil {
		return err
	}
	return imagefile.AppendConfig(o, imagefile.Config{
		Env: c.Env, WorkingDir: c.WorkingDir, Entrypoint: c.Entrypoint, Cmd: c.Cmd, Labels: c.Labels,
	})
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

// treeLayers are an image's tree and what was changed in it, if anything was, as
// layers.
type treeLayers struct {
	base    *os.File
	folder  bool  // what base is
	offset  int64 // of the squashfs in base
	size    int64 // from there to the end
	changes *Changes
}

func newTreeLayers(base *os.File, changes *Changes) (*treeLayers, error) {
	info, err := base.Stat()
	if err != nil || info.IsDir() {
		return &treeLayers{base: base, folder: true, changes: changes}, err
	}
	offset, err := imagefile.FindSquashfs(base)
	return &treeLayers{base: base, offset: offset, size: info.Size() - offset, changes: changes}, err
}

// isSquashfs says whether base is what the tree is to be saved as.
func (t *treeLayers) isSquashfs() bool { return !t.folder && t.offset == 0 }

// Len implements LayerSource.
func (t *treeLayers) Len() int {
	if t.changes == nil {
		return 1
	}
	return 2
}

// Open implements LayerSource.
func (t *treeLayers) Open(ctx context.Context, i int) (io.ReadCloser, error) {
	if i == 1 {
		return t.changes.open(ctx)
	}
	r, w := io.Pipe()
	go func() { w.CloseWithError(t.writeBase(ctx, w)) }()
	return r, nil
}

func (t *treeLayers) writeBase(ctx context.Context, w io.Writer) error {
	if !t.folder {
		return TarSquashfs(ctx, io.NewSectionReader(t.base, t.offset, t.size), t.size, w)
	}
	l := newLayerTar(ctx, w)
	if err := l.tree(fmt.Sprintf("/proc/self/fd/%d", t.base.Fd())); err != nil {
		return err
	}
	return l.tw.Close()
}

// A saving writes the files of one Save, tells of it, and stops with its
// context.
type saving struct {
	ctx    context.Context //nolint:containedctx // lives as long as one call of Save
	report *reporter
	done   int64
	total  int64 // of the layers, in bytes; what else there is hardly counts
}

func newSaving(ctx context.Context, im v1.Image, progress ProgressFunc) (*saving, error) {
	s := &saving{ctx: ctx, report: &reporter{f: progress}}
	layers, err := im.Layers()
	if err != nil {
		return nil, err
	}
	for _, l := range layers {
		size, err := l.Size()
		if err != nil {
			return nil, err
		}
		s.total += size
	}
	return s, nil
}

// file makes a file of what write writes.
func (s *saving) file(path string, write func(io.Writer) error) error {
	out, err := newOutput(path)
	if err != nil {
		return err
	}
	defer out.discard()
	if err := write(&savedFile{out, s, time.Time{}}); err != nil {
		return err
	}
	if s.ctx.Err() != nil {
		return context.Cause(s.ctx)
	}
	return out.commit()
}

// A savedFile is a file on its way.
type savedFile struct {
	out  *output
	s    *saving
	last time.Time
}

// Write implements io.Writer.
func (f *savedFile) Write(p []byte) (int, error) {
	if f.s.ctx.Err() != nil {
		return 0, context.Cause(f.s.ctx)
	}
	n, err := f.out.Write(p)
	f.s.done += int64(n)
	if now := time.Now(); now.Sub(f.last) >= reportEvery {
		f.last = now
		f.s.report.report(Progress{Phase: PhaseSave, Layer: 1, Layers: 1, Done: min(f.s.done, f.s.total), Total: f.s.total})
	}
	return n, err
}
