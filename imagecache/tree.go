package imagecache

import (
	"archive/tar"
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/imagecache/squashfs"
)

// tree writes the folder dir, with what the policy of contents keeps of it: the
// same folder gives the same bytes, whoever owns it and wherever it lies. Names
// in a folder are in the order of their bytes, files with several names become
// hard links, all belongs to root, times are whole seconds. Sockets, device
// nodes and extended attributes are left out.
//
// Symbolic links are never followed, but for dir itself. What cannot be read,
// what changes meanwhile, and what a layer cannot hold (names that begin with
// ".wh.", other file systems mounted below dir) is an error that names it.
// Files are written in full, holes included.
func (t *layerTar) tree(dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	info, err := root.Stat(".")
	if err != nil {
		return err
	}
	f := folderTar{layerTar: t, root: root, dir: dir, device: statOf(info).Dev}
	return f.folder("", info)
}

// TarSquashfs writes the tree in the squashfs file f, of size bytes, to w as
// layerTar.tree writes a folder: the bytes are the same as for a folder with
// that tree. f may have any compressor and is not trusted.
func TarSquashfs(ctx context.Context, f io.ReaderAt, size int64, w io.Writer) error {
	r, err := squashfs.NewReader(f, size)
	if err != nil {
		return err
	}
	t := newLayerTar(ctx, w)
	if err := t.squashfs(ctx, r); err != nil {
		return err
	}
	return t.tw.Close()
}

// squashfs writes the tree of a squashfs file.
func (t *layerTar) squashfs(ctx context.Context, r *squashfs.Reader) error {
	return r.Walk(ctx, func(path string, n *squashfs.Node) error {
		e := layerEntry{
			name: path, kind: tarKinds[n.Kind], mode: int64(n.Mode), time: time.Unix(int64(n.MTime), 0),
			size: n.Size, target: n.Target, id: fileID{0, uint64(n.Number)}, linked: n.Links > 1,
		}
		return t.add(e, func() (io.ReadCloser, error) { return io.NopCloser(r.Content(n)), nil })
	})
}

// tarKinds are the kinds of inodes that a layer keeps.
var tarKinds = map[squashfs.Kind]byte{
	squashfs.Dir: tar.TypeDir, squashfs.Regular: tar.TypeReg, squashfs.Symlink: tar.TypeSymlink, squashfs.Fifo: tar.TypeFifo,
}

// A layerTar writes files as entries of one layer.
type layerTar struct {
	ctx   context.Context //nolint:containedctx // lives as long as the writing of one layer
	tw    *tar.Writer
	first map[fileID]string // the first name of files with several
	left  int64             // bytes of content that may still come
	buf   []byte

	machines machines // what the programs in it were built for
}

// A fileID is the same for all names of a file.
type fileID struct{ device, inode uint64 }

// A layerEntry is a file under one of its names.
type layerEntry struct {
	name   string // "" is the root
	kind   byte   // a tar.Type…, or 0 for what a layer leaves out
	mode   int64
	time   time.Time
	size   int64
	target string
	id     fileID
	linked bool // it may have other names
}

func newLayerTar(ctx context.Context, w io.Writer) *layerTar {
	return &layerTar{ctx: ctx, tw: tar.NewWriter(w), first: map[fileID]string{}, left: defaultBytes, buf: make([]byte, 256<<10), machines: machines{}}
}

// add writes an entry, and what open returns if that has content.
func (t *layerTar) add(e layerEntry, open func() (io.ReadCloser, error)) error {
	if e.kind == 0 {
		return nil
	}
	if strings.HasPrefix(path.Base(e.name), ".wh.") {
		return &fault.Error{
			Op: "read", Arg: quote(e.name), Blame: fault.User, Err: errors.New(`in images, names with ".wh." in front mean removed files`),
			Remedy: "remove or rename it",
		}
	}
	h := &tar.Header{Typeflag: e.kind, Name: e.name, Mode: e.mode & 0o7777, ModTime: clampTime(e.time), Linkname: e.target}
	switch e.kind {
	case tar.TypeDir:
		h.Name += "/"
		if e.name == "" {
			h.Name = "./"
		}
		return t.tw.WriteHeader(h)
	case tar.TypeSymlink:
		h.Mode = 0o777
	}
	if e.linked {
		if first, ok := t.first[e.id]; ok {
			h.Typeflag, h.Linkname = tar.TypeLink, first
			return t.tw.WriteHeader(h)
		}
		t.first[e.id] = e.name
	}
	if e.kind != tar.TypeReg {
		return t.tw.WriteHeader(h)
	}
	h.Size = e.size
	return t.file(h, open)
}

// file writes a regular file.
func (t *layerTar) file(h *tar.Header, open func() (io.ReadCloser, error)) error {
	if t.left -= h.Size; t.left < 0 {
		return Limits{}.orDefault().tooManyBytes()
	}
	if err := t.tw.WriteHeader(h); err != nil {
		return err
	}
	content, err := open()
	if err != nil {
		return err
	}
	defer content.Close()
	var from io.Reader = &cancelled{t.ctx, io.LimitReader(content, h.Size)}
	if h.Mode&0o111 != 0 {
		start := bufio.NewReaderSize(from, 4<<10)
		head, _ := start.Peek(20) // an error comes back with the content
		t.machines.note(head)
		from = start
	}
	n, err := io.CopyBuffer(onlyWriter{t.tw}, onlyReader{from}, t.buf)
	if err == nil && n < h.Size {
		err = changed(h.Name)
	}
	return err
}

// onlyWriter and onlyReader hide ReadFrom and WriteTo, which would not use our
// buffer.
type (
	onlyWriter struct{ io.Writer }
	onlyReader struct{ io.Reader }
)

// changed says that a file did not hold still.
func changed(name string) error {
	return &fault.Error{
		Op: "read", Arg: quote(name), Blame: fault.User, Err: errors.New("it changed while it was read"),
		Remedy: "wait until nothing writes there any more, and try again",
	}
}

// folderTar walks a folder.
type folderTar struct {
	*layerTar
	root   *os.Root
	dir    string // the root, as the caller named it
	device uint64
}

func statOf(info fs.FileInfo) *syscall.Stat_t { return info.Sys().(*syscall.Stat_t) }

// folder writes the folder name and what is in it.
func (t *folderTar) folder(name string, info fs.FileInfo) error {
	if statOf(info).Dev != t.device {
		return &fault.Error{
			Op: "read", Arg: path.Join(t.dir, name), Blame: fault.User, Err: errors.New("another file system is mounted there"),
			Remedy: "unmount it, or copy the folder without it",
		}
	}
	if err := t.add(entryOf(name, info), nil); err != nil {
		return err
	}
	children, err := t.list(name)
	if err != nil {
		return err
	}
	for _, base := range children {
		if t.ctx.Err() != nil {
			return context.Cause(t.ctx)
		}
		if err := t.child(path.Join(name, base)); err != nil {
			return err
		}
	}
	return nil
}

// list returns the names in a folder, sorted.
func (t *folderTar) list(name string) ([]string, error) {
	f, err := t.root.Open(orDot(name))
	if err != nil {
		return nil, t.named(name, err)
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	slices.Sort(names)
	return names, t.named(name, err)
}

func orDot(name string) string {
	if name == "" {
		return "."
	}
	return name
}

// named gives an error of os.Root the whole path, and nothing else.
func (t *folderTar) named(name string, err error) error {
	if err == nil {
		return nil
	}
	if inner := errors.Unwrap(err); inner != nil {
		err = inner
	}
	return fmt.Errorf("read %s: %w", path.Join(t.dir, name), err)
}

func (t *folderTar) child(name string) error {
	info, err := t.root.Lstat(name)
	if err != nil {
		return t.named(name, err)
	}
	if info.IsDir() {
		return t.folder(name, info)
	}
	e := entryOf(name, info)
	if e.kind == tar.TypeSymlink {
		if e.target, err = t.root.Readlink(name); err != nil {
			return t.named(name, err)
		}
	}
	return t.add(e, t.opener(name, info))
}

// opener opens a file that was just looked at.
func (t *folderTar) opener(name string, info fs.FileInfo) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) {
		f, err := t.root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
		if err != nil {
			return nil, t.named(name, err)
		}
		now, err := f.Stat()
		if err == nil && (!os.SameFile(now, info) || now.Size() != info.Size()) {
			err = changed(name)
		}
		if err != nil {
			f.Close()
			return nil, err
		}
		return f, nil
	}
}

func entryOf(name string, info fs.FileInfo) layerEntry {
	st := statOf(info)
	e := layerEntry{
		name: name, mode: int64(st.Mode), time: info.ModTime(), size: info.Size(),
		id: fileID{st.Dev, st.Ino}, linked: st.Nlink > 1,
	}
	switch info.Mode().Type() {
	case 0:
		e.kind = tar.TypeReg
	case fs.ModeDir:
		e.kind = tar.TypeDir
	case fs.ModeSymlink:
		e.kind = tar.TypeSymlink
	case fs.ModeNamedPipe:
		e.kind = tar.TypeFifo
	}
	return e
}
