package imagecache

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/sys/unix"

	"github.com/berth-hpc/berth/fault"
)

// layoutMark is the content of the file oci-layout.
const layoutMark = `{"imageLayoutVersion":"1.0.0"}`

// A blobSource is one blob of an image.
type blobSource struct {
	hash v1.Hash
	size int64
	open func() (io.ReadCloser, error)
}

// blobsOf lists an image's blobs, the manifest last: what names others comes
// after them.
func blobsOf(im v1.Image) ([]blobSource, error) {
	layers, err := im.Layers()
	if err != nil {
		return nil, err
	}
	var blobs []blobSource
	seen := map[v1.Hash]bool{}
	for _, l := range layers {
		b := blobSource{open: l.Compressed}
		if b.hash, err = l.Digest(); err != nil {
			return nil, err
		}
		if b.size, err = l.Size(); err != nil {
			return nil, err
		}
		if !seen[b.hash] {
			blobs = append(blobs, b)
		}
		seen[b.hash] = true
	}
	for _, raw := range []func() ([]byte, error){im.RawConfigFile, im.RawManifest} {
		data, err := raw()
		if err != nil {
			return nil, err
		}
		blobs = append(blobs, blobSource{hashOf(data), int64(len(data)), func() (io.ReadCloser, error) {
			return io.NopCloser(bytes.NewReader(data)), nil
		}})
	}
	return blobs, nil
}

// descriptorOf is how a layout's index names im.
func descriptorOf(im v1.Image, tag string) (v1.Descriptor, error) {
	desc, err := partial.Descriptor(im)
	if err != nil {
		return v1.Descriptor{}, err
	}
	config, err := im.ConfigFile()
	if err != nil {
		return v1.Descriptor{}, err
	}
	out := v1.Descriptor{MediaType: desc.MediaType, Size: desc.Size, Digest: desc.Digest, Platform: config.Platform()}
	if tag != "" {
		out.Annotations = map[string]string{refName: tag}
	}
	return out, nil
}

// writeLayoutTar writes an archive of a layout with im in it.
func writeLayoutTar(w io.Writer, im v1.Image, tag string) error {
	desc, err := descriptorOf(im, tag)
	if err != nil {
		return err
	}
	index, err := json.Marshal(layoutIndex(desc))
	if err != nil {
		return err
	}
	blobs, err := blobsOf(im)
	if err != nil {
		return err
	}
	tw := tar.NewWriter(w)
	for _, f := range []struct {
		name string
		data []byte
	}{{"oci-layout", []byte(layoutMark)}, {"index.json", index}} {
		if err := addToTar(tw, f.name, int64(len(f.data)), bytes.NewReader(f.data)); err != nil {
			return err
		}
	}
	for _, dir := range []string{"blobs/", "blobs/sha256/"} {
		if err := tw.WriteHeader(tarHeader(tar.TypeDir, dir, 0o755, 0)); err != nil {
			return err
		}
	}
	for _, b := range blobs {
		body, err := b.open()
		if err == nil {
			err = errors.Join(addToTar(tw, path.Join("blobs", b.hash.Algorithm, b.hash.Hex), b.size, body), body.Close())
		}
		if err != nil {
			return err
		}
	}
	return tw.Close()
}

// tarHeader is for a file of the caller's: skopeo unpacks archives with their
// owners, so that others than root could not read one of root's.
func tarHeader(kind byte, name string, mode, size int64) *tar.Header {
	return &tar.Header{Typeflag: kind, Name: name, Mode: mode, Size: size, Uid: os.Geteuid(), Gid: os.Getegid()}
}

func addToTar(tw *tar.Writer, name string, size int64, r io.Reader) error {
	if err := tw.WriteHeader(tarHeader(tar.TypeReg, name, 0o644, size)); err != nil {
		return err
	}
	_, err := io.Copy(tw, r)
	return err
}

func layoutIndex(manifests ...v1.Descriptor) v1.IndexManifest {
	return v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: manifests}
}

// layout adds im to the layout at to.Path, in the place of what has its
// tag, or makes a layout there.
func (s *saving) layout(im v1.Image, to Destination) error {
	entries, err := os.ReadDir(to.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return s.newLayout(im, to)
	case err != nil:
		return err
	}
	if _, err := os.Stat(filepath.Join(to.Path, "oci-layout")); err != nil && len(entries) > 0 {
		return &fault.Error{
			Op: "write to", Arg: to.Path, Blame: fault.User, Err: errors.New("the folder is there, but is no OCI layout"),
			Remedy: "name another folder, or one that does not exist yet",
		}
	}
	return s.addToLayout(im, to.Path, to.Tag)
}

// newLayout gives the folder its name when it is complete.
func (s *saving) newLayout(im v1.Image, to Destination) error {
	sweepParts(to.Path)
	part, err := os.MkdirTemp(filepath.Dir(to.Path), "."+filepath.Base(to.Path)+".berth-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(part) // does nothing once renamed
	layout := filepath.Join(part, "layout")
	if err := os.Mkdir(layout, 0o777); err != nil { // under the umask, as the user's other folders
		return err
	}
	if err := s.addToLayout(im, layout, to.Tag); err != nil {
		return err
	}
	if err := os.Rename(layout, to.Path); err != nil {
		return err
	}
	return syncFolder(filepath.Dir(to.Path))
}

// partAge is how old a part is that nobody can be about to lock any more.
const partAge = 10 * time.Minute

// sweepParts removes what was left beside path by those who were killed while
// they made it. Who is alive holds the lock of what they make.
func sweepParts(path string) {
	parts, _ := filepath.Glob(filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".berth-*"))
	for _, part := range parts {
		info, err := os.Lstat(part)
		if err != nil || !info.IsDir() || time.Since(info.ModTime()) < partAge {
			continue
		}
		if f, err := os.Open(filepath.Join(part, "layout")); err == nil {
			if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
				_ = os.RemoveAll(part)
			}
			f.Close()
		}
	}
}

// addToLayout writes blobs that dir lacks and then the index. Two processes
// take turns.
func (s *saving) addToLayout(im v1.Image, dir, tag string) error {
	lock, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := s.takeTurn(lock); err != nil {
		return err
	}
	blobs, err := blobsOf(im)
	if err != nil {
		return err
	}
	for _, b := range blobs {
		if err := s.addBlob(dir, b); err != nil {
			return err
		}
	}
	if err := s.bytes(filepath.Join(dir, "oci-layout"), []byte(layoutMark)); err != nil {
		return err
	}
	return s.addToIndex(im, filepath.Join(dir, "index.json"), tag)
}

// turnPoll is how often a process asks for its turn.
const turnPoll = 50 * time.Millisecond

// takeTurn waits for the lock of a layout's folder. Where the file system has
// no locks, two who save there at once may lose one of two tags.
func (s *saving) takeTurn(dir *os.File) error {
	for {
		err := unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case errors.Is(err, unix.EWOULDBLOCK):
			if err := wait(s.ctx, turnPoll); err != nil {
				return err
			}
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.ENOLCK), errors.Is(err, unix.EOPNOTSUPP), err == nil:
			return nil
		default:
			return os.NewSyscallError("flock", err)
		}
	}
}

func (s *saving) bytes(path string, data []byte) error {
	return s.file(path, func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	})
}

// addBlob writes a blob unless the layout has it.
func (s *saving) addBlob(dir string, b blobSource) error {
	path := filepath.Join(dir, "blobs", b.hash.Algorithm, b.hash.Hex)
	if info, err := os.Stat(path); err == nil && info.Size() == b.size {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return s.file(path, func(w io.Writer) error {
		body, err := b.open()
		if err != nil {
			return err
		}
		n, err := io.Copy(w, body)
		if err == nil && n != b.size {
			err = mismatch("blob", fmt.Sprintf("%d bytes", b.size), fmt.Sprintf("%d bytes", n))
		}
		return errors.Join(err, body.Close())
	})
}

// addToIndex puts im into the index in the place of what has the same tag.
func (s *saving) addToIndex(im v1.Image, path, tag string) error {
	desc, err := descriptorOf(im, tag)
	if err != nil {
		return err
	}
	index := layoutIndex()
	raw, err := readFile(path, maxManifest)
	switch {
	case err == nil:
		err = json.Unmarshal(raw, &index)
	case errors.Is(err, fs.ErrNotExist):
		err = nil
	}
	if err != nil {
		return fmt.Errorf("read the layout's index: %w", err)
	}
	kept := []v1.Descriptor{}
	for _, d := range index.Manifests {
		if d.Annotations[refName] != tag {
			kept = append(kept, d)
		}
	}
	index.Manifests = append(kept, desc)
	if raw, err = json.Marshal(index); err != nil {
		return err
	}
	return s.bytes(path, raw)
}
