package imagecache

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
)

// Limits on archives, which may be made to do harm.
const (
	maxMembers = 100_000
	// maxTexts is how much of a compressed archive's manifests and configs is
	// held in memory, in bytes.
	maxTexts = 64 << 20
	// spoolLayers is up to how many layers are read out of a compressed
	// archive one by one, each from the archive's start.
	spoolLayers = 2
)

// tarFile is files in a tar archive. A compressed one is read through once to
// index it, when its manifests and configs are kept, and then again for each
// file that is opened, unless spool has made a plain copy.
type tarFile struct {
	path       string
	compressed bool
	members    map[string]member
	texts      map[string][]byte // small JSON files of a compressed archive
	textBytes  int
	plain      string // the decompressed archive, once it is spooled
}

// A member is where a file lies in the archive, without its compression.
type member struct{ offset, size int64 }

func openTarFile(ctx context.Context, path string) (*tarFile, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	t := &tarFile{path: path, members: map[string]member{}, texts: map[string][]byte{}}
	head := make([]byte, 6)
	n, err := f.ReadAt(head, 0)
	if err != nil && err != io.EOF {
		return nil, err
	}
	t.compressed = isCompressed(head[:n])
	if err := t.index(ctx, f); err != nil {
		return nil, notArchive(err)
	}
	return t, nil
}

func isCompressed(head []byte) bool {
	for _, magic := range []string{"\x1f\x8b", "\x28\xb5\x2f\xfd", "\xfd7zXZ\x00"} {
		if bytes.HasPrefix(head, []byte(magic)) {
			return true
		}
	}
	return false
}

// counting counts what is read through it.
type counting struct {
	r io.Reader
	n int64
}

// Read implements io.Reader.
func (c *counting) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

// index finds the files. Of a plain archive it reads the headers alone:
// archive/tar skips by seeking.
func (t *tarFile) index(ctx context.Context, f *os.File) error {
	if !t.compressed {
		return t.walk(ctx, tar.NewReader(f), func() (int64, error) { return f.Seek(0, io.SeekCurrent) })
	}
	plain, err := decompressed(f, "the archive")
	if err != nil {
		return err
	}
	defer plain.Close()
	count := &counting{r: &cancelled{ctx, plain}}
	if err := t.walk(ctx, tar.NewReader(count), func() (int64, error) { return count.n, nil }); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, count) // padding; checksums come at the end
	return err
}

// walk reads headers to the end. Old versions of docker save store a layer
// that two images share as a symbolic link to the other's.
func (t *tarFile) walk(ctx context.Context, tr *tar.Reader, where func() (int64, error)) error {
	links := map[string]string{}
	for {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err == nil {
			err = context.Cause(ctx)
		}
		if err != nil {
			return err
		}
		offset, err := where()
		if err != nil {
			return err
		}
		name := path.Clean(h.Name)
		switch h.Typeflag {
		case tar.TypeReg:
			t.members[name] = member{offset: offset, size: h.Size}
			err = t.keepText(name, h.Size, tr)
		case tar.TypeSymlink:
			links[name] = path.Join(path.Dir(name), h.Linkname)
		}
		if err == nil && len(t.members)+len(links) > maxMembers {
			err = fmt.Errorf("it holds more than %d files", maxMembers)
		}
		if err != nil {
			return err
		}
	}
	for name, target := range links {
		if m, ok := t.members[target]; ok {
			t.members[name] = m
		}
	}
	return nil
}

// keepText keeps what may be a manifest or a config of a compressed archive,
// since which of them matter is known at the end only.
func (t *tarFile) keepText(name string, size int64, r io.Reader) error {
	if !t.compressed || size > maxConfig || size == 0 {
		return nil
	}
	first := make([]byte, 1)
	if _, err := io.ReadFull(r, first); err != nil {
		return err
	}
	if first[0] != '{' && first[0] != '[' {
		return nil
	}
	if t.textBytes += int(size); t.textBytes > maxTexts {
		return fmt.Errorf("its manifests have more than %d MiB", maxTexts>>20)
	}
	raw, err := io.ReadAll(io.MultiReader(bytes.NewReader(first), r))
	t.texts[name] = raw
	return err
}

// errNotInArchive is the cause when an archive lacks a file.
var errNotInArchive = errors.New("it is not in the archive")

func (t *tarFile) small(name string, limit int64) ([]byte, error) {
	f, err := t.open(context.Background(), name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readLimited(f, limit)
}

func (t *tarFile) open(ctx context.Context, name string) (io.ReadCloser, error) {
	name = path.Clean(name)
	m, ok := t.members[name]
	if !ok {
		return nil, fmt.Errorf("%s: %w", quote(name), errNotInArchive)
	}
	if text, ok := t.texts[name]; ok {
		return io.NopCloser(bytes.NewReader(text)), nil
	}
	from := t.path
	if t.plain != "" {
		from = t.plain
	}
	f, err := os.Open(from)
	if err != nil {
		return nil, err
	}
	if !t.compressed || t.plain != "" {
		return readCloser{io.NewSectionReader(f, m.offset, m.size), f.Close}, nil
	}
	return openCompressed(ctx, f, m)
}

// openCompressed reads a compressed archive up to the member and returns that.
func openCompressed(ctx context.Context, f *os.File, m member) (io.ReadCloser, error) {
	plain, err := decompressed(f, "the archive")
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	closeBoth := func() error { return errors.Join(plain.Close(), f.Close()) }
	if _, err := io.CopyN(io.Discard, &cancelled{ctx, plain}, m.offset); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return nil, errors.Join(err, closeBoth())
	}
	return readCloser{io.LimitReader(plain, m.size), closeBoth}, nil
}

// spool writes a plain copy of a compressed archive to dir, for images of more
// layers than are worth reading through the archive for. release removes it.
func (t *tarFile) spool(ctx context.Context, dir string, layers int) error {
	if !t.compressed || t.plain != "" || layers <= spoolLayers {
		return nil
	}
	f, err := os.Open(t.path)
	if err != nil {
		return err
	}
	defer f.Close()
	plain, err := decompressed(f, "the archive")
	if err != nil {
		return err
	}
	defer plain.Close()
	to := filepath.Join(dir, "archive")
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, &cancelled{ctx, plain})
	if err = errors.Join(err, out.Close()); err == nil {
		t.plain = to
	}
	return err
}

func (t *tarFile) release() error {
	if t.plain == "" {
		return nil
	}
	err := os.Remove(t.plain)
	t.plain = ""
	return err
}
