package imagecache

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"

	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/imagecache/squashfs"
	"github.com/berth-hpc/berth/imagecache/store"
	"github.com/berth-hpc/berth/imagefile"
)

// treeSource is a tree without layers, a folder or a squashfs or SIF file, as
// an image of one layer. It is read twice: once to learn the layer's digest,
// from which a manifest is made, and once to be converted. If it changed
// meanwhile, the digest shows it. One tree has one digest, wherever it lies
// and whatever it is packed in.
type treeSource struct {
	ref   Reference
	write func(ctx context.Context, t *layerTar) error
	madeImage
}

// TreeConfig returns what the tree at path, a folder or a squashfs or SIF file,
// says of how to run it. Most trees say nothing.
func TreeConfig(path string) (store.Config, error) {
	c, ok := appendedConfig(path)
	if !ok {
		read, done, err := openTree(path)
		if err != nil {
			return store.Config{}, imageFault("open image", Reference{kind: Path, path: path}, notSquashfs(err))
		}
		defer func() { _ = done() }() // it was only read
		c = imagefile.ReadConfig(read)
	}
	return store.Config{Env: c.Env, WorkingDir: c.WorkingDir, Entrypoint: c.Entrypoint, Cmd: c.Cmd, Labels: c.Labels}, nil
}

// appendedConfig is what berth save keeps behind a squashfs file.
func appendedConfig(path string) (imagefile.Config, bool) {
	f, err := os.Open(path)
	if err != nil {
		return imagefile.Config{}, false
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return imagefile.Config{}, false
	}
	return imagefile.AppendedConfig(f, info.Size())
}

// openTree returns how files of a tree are read, and what ends that.
func openTree(path string) (read imagefile.ReadFile, done func() error, err error) {
	if info, err := os.Stat(path); err == nil && !info.IsDir() {
		f, r, err := openSquashfs(path)
		if err != nil {
			return nil, nil, err
		}
		return r.ReadFile, f.Close, nil
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, nil, err
	}
	return func(name string) ([]byte, error) { return readInRoot(root, name) }, root.Close, nil
}

// readInRoot reads a small file of a folder, whose links do not lead out of it.
func readInRoot(root *os.Root, name string) ([]byte, error) {
	f, err := root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0) // it may be a pipe
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readLimited(f, maxConfig)
}

func newFolderSource(ctx context.Context, ref Reference) (*treeSource, error) {
	return newTreeSource(ctx, ref, func(_ context.Context, t *layerTar) error { return t.tree(ref.path) })
}

func newSquashfsSource(ctx context.Context, ref Reference) (*treeSource, error) {
	return newTreeSource(ctx, ref, func(ctx context.Context, t *layerTar) error {
		f, r, err := openSquashfs(ref.path)
		if err != nil {
			return notSquashfs(err)
		}
		defer f.Close()
		return notSquashfs(t.squashfs(ctx, r))
	})
}

// openSquashfs opens the squashfs in a squashfs or SIF file.
func openSquashfs(path string) (*os.File, *squashfs.Reader, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	offset, err := imagefile.FindSquashfs(f)
	var info os.FileInfo
	if err == nil {
		info, err = f.Stat()
	}
	var r *squashfs.Reader
	if err == nil {
		size := info.Size() - offset
		r, err = squashfs.NewReader(io.NewSectionReader(f, offset, size), size)
	}
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, r, nil
}

// notSquashfs says what to do about a file that cannot be read as one.
func notSquashfs(err error) error {
	if !errors.Is(err, squashfs.ErrStructure) {
		return err
	}
	return &fault.Error{
		Op: "read squashfs", Blame: fault.User, Err: err,
		Remedy: "copy or make the file again; it is damaged or cut off",
	}
}

func newTreeSource(ctx context.Context, ref Reference, write func(context.Context, *layerTar) error) (*treeSource, error) {
	s := &treeSource{ref: ref, write: write}
	sum := sha256.New()
	t, err := s.tar(ctx, sum)
	if err != nil {
		return nil, err
	}
	found, err := TreeConfig(ref.path)
	if err != nil {
		return nil, err
	}
	diffID := v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(sum.Sum(nil))}
	config, err := json.Marshal(v1.ConfigFile{
		OS: "linux", Architecture: t.machines.architecture(),
		Config: v1.Config{
			Env: found.Env, WorkingDir: found.WorkingDir, Entrypoint: found.Entrypoint, Cmd: found.Cmd, Labels: found.Labels,
		},
		RootFS: v1.RootFS{Type: "layers", DiffIDs: []v1.Hash{diffID}},
	})
	if err == nil {
		s.madeImage, err = makeImage(config, []v1.Hash{diffID})
	}
	return s, err
}

// tar writes the layer.
func (s *treeSource) tar(ctx context.Context, w io.Writer) (*layerTar, error) {
	buffered := bufio.NewWriterSize(w, 256<<10)
	t := newLayerTar(ctx, buffered)
	err := s.write(ctx, t)
	if err == nil {
		err = errors.Join(t.tw.Close(), buffered.Flush())
	}
	return t, err
}

func (s *treeSource) local() bool    { return true }
func (s *treeSource) origin() string { return s.ref.path }

func (s *treeSource) blob(ctx context.Context, desc v1.Descriptor) (io.ReadCloser, error) {
	if desc.Digest == hashOf(s.config) {
		return io.NopCloser(bytes.NewReader(s.config)), nil
	}
	r, w := io.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, err := s.tar(ctx, w)
		w.CloseWithError(err)
	}()
	v, err := verify(r, s.ref.path, desc.Digest, -1)
	if err != nil {
		r.Close()
		return nil, err
	}
	v.bad = func(string, string, string) error { return changed(s.ref.path) }
	return readCloser{v, func() error {
		err := r.Close() // ends the writer, too
		<-done
		return err
	}}, nil
}

// machines counts the programs in a tree by what they were built for.
type machines map[string]int

// elfMachines are the architectures that programs name, class and byte order
// included (elf.h): e_ident[EI_CLASS], e_ident[EI_DATA], e_machine.
var elfMachines = map[[3]int]string{
	{2, 1, 62}: "amd64", {2, 1, 183}: "arm64", {2, 1, 243}: "riscv64", {2, 1, 21}: "ppc64le", {2, 2, 21}: "ppc64",
	{2, 2, 22}: "s390x", {1, 1, 3}: "386", {1, 1, 40}: "arm", {2, 1, 258}: "loong64",
}

// note looks at the first bytes of an executable file.
func (m machines) note(start []byte) {
	if len(start) < 20 || !bytes.HasPrefix(start, []byte("\x7fELF")) {
		return
	}
	class, order := int(start[4]), int(start[5])
	machine := int(start[18]) | int(start[19])<<8
	if order == 2 {
		machine = int(start[18])<<8 | int(start[19])
	}
	if name, ok := elfMachines[[3]int{class, order, machine}]; ok {
		m[name]++
	}
}

// architecture is that of most programs, this machine's if there is none.
func (m machines) architecture() string {
	best := HostPlatform().Architecture
	for name, n := range m {
		if n > m[best] || n == m[best] && n > 0 && name < best {
			best = name
		}
	}
	return best
}
