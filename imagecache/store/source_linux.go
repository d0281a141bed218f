package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// A Source is an image of a cluster's store, opened: what it read is what was
// checked, whatever becomes of the names.
type Source struct {
	image    Image
	dir      *os.File
	Rootfs   *os.File // the squashfs file
	Manifest []byte   // image.json
	record   []byte   // record.json
	parsed   Record
}

// Open opens image d of the cluster's store. The error is ErrNotFound when it
// is not there, ErrUnusable when it may not be trusted (only root may have
// been able to change it: no links, no other owner, no other writer, no second
// name), and ErrDamaged when it is not what its record says, as far as that
// shows without reading it.
func (c *Cluster) Open(ctx context.Context, d Digest) (*Source, error) {
	src, err := patiently(ctx, c.opts.Patience, func() (*Source, error) { return c.open(d) })
	if err == nil || errors.Is(err, ErrNotFound) || errors.Is(err, ErrDamaged) || ctx.Err() != nil {
		return src, err
	}
	return nil, unusable("open image", d.String(), err)
}

func (c *Cluster) open(d Digest) (*Source, error) {
	folder, err := openTrustedDir(c.root, "images", "sha256", Key(d))
	if errors.Is(err, unix.ENOENT) {
		return nil, fmt.Errorf("%s: %w", d, ErrNotFound)
	}
	if err != nil {
		return nil, err
	}
	s := &Source{image: Image{dir: filepath.Join(c.imagesDir(), Key(d)), digest: d}, dir: folder}
	if err := s.openFiles(); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

func (s *Source) openFiles() (err error) {
	if s.Manifest, err = s.readSmall(ConfigName); err != nil {
		return err
	}
	if s.record, err = s.readSmall(RecordName); err != nil {
		return err
	}
	if s.Rootfs, err = openTrustedFile(s.dir, RootfsName); err != nil {
		return damagedIfMissing(err)
	}
	info, err := s.Rootfs.Stat()
	if err != nil {
		return err
	}
	switch err := json.Unmarshal(s.record, &s.parsed); {
	case err != nil:
		return fmt.Errorf("%w: its record: %w", ErrDamaged, err)
	case s.parsed.Digest != s.image.digest:
		return fmt.Errorf("%w: its record is about %v", ErrDamaged, s.parsed.Digest)
	case s.parsed.Squashed != info.Size():
		return fmt.Errorf("%w: it has %d bytes, not %d", ErrDamaged, info.Size(), s.parsed.Squashed)
	}
	return nil
}

func (s *Source) readSmall(name string) ([]byte, error) {
	f, err := openTrustedFile(s.dir, name)
	if err != nil {
		return nil, damagedIfMissing(err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxJSON+1))
	if err == nil && len(data) > maxJSON {
		err = fmt.Errorf("%w: %s is larger than %d bytes", ErrDamaged, name, maxJSON)
	}
	return data, err
}

// damagedIfMissing is about files of a folder that only publishing made.
func damagedIfMissing(err error) error {
	if errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return err
}

// Image returns the image; its files are the cluster's.
func (s *Source) Image() Image { return s.image }

// Size returns the size of the squashfs file in bytes.
func (s *Source) Size() int64 { return s.parsed.Squashed }

// Touch notes that the image is used, in a store that this node may write; to
// the hour, because all nodes do so.
func (s *Source) Touch(c *Cluster) {
	info, err := s.Rootfs.Stat()
	if err == nil && c.opts.Writer && time.Since(info.ModTime()) > time.Hour {
		_ = s.image.Touch() // its time in the list is old, then
	}
}

// OpenUp is AddOrigin for a public origin o, on nodes that may write the store;
// on others it does nothing. s is then as it was opened up.
func (s *Source) OpenUp(ctx context.Context, c *Cluster, o Origin, reference string) error {
	if !c.opts.Writer {
		return nil
	}
	if err := c.patiently(ctx, func() error { return s.image.AddOrigin(o, reference) }); err != nil {
		return err
	}
	now, err := c.Open(ctx, s.image.digest)
	if err != nil {
		return err
	}
	*s, *now = *now, *s
	return now.Close()
}

// Close closes what Open opened.
func (s *Source) Close() error {
	err := s.dir.Close()
	if s.Rootfs != nil {
		err = errors.Join(err, s.Rootfs.Close())
	}
	return err
}

// InPlace says whether the image still has its name: it was neither removed
// nor replaced since Open.
func (s *Source) InPlace(ctx context.Context, c *Cluster) bool {
	now, err := c.Open(ctx, s.image.digest)
	if err != nil {
		return false
	}
	defer now.Close()
	a, err1 := s.Rootfs.Stat()
	b, err2 := now.Rootfs.Stat()
	return err1 == nil && err2 == nil && os.SameFile(a, b)
}

// Verify reads the whole squashfs file; the error is ErrDamaged when it is not
// what the record says.
func (s *Source) Verify(ctx context.Context) error {
	got, err := Hash(ctx, io.NewSectionReader(s.Rootfs, 0, s.parsed.Squashed))
	return s.checkSum(got, err)
}

func (s *Source) checkSum(got string, err error) error {
	if err == nil && got != s.parsed.SHA256 {
		err = fmt.Errorf("%w: its SHA-256 is %s, not %q", ErrDamaged, got, s.parsed.SHA256)
	}
	return err
}

// openTrustedDir opens a folder below root, one element after the other, none
// of which may be a link or somebody else's.
func openTrustedDir(root string, below ...string) (*os.File, error) {
	at, err := os.OpenFile(root, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	for {
		if err := checkTrusted(at, unix.S_IFDIR); err != nil {
			at.Close()
			return nil, err
		}
		if len(below) == 0 {
			return at, nil
		}
		next, err := openBelow(at, below[0], unix.O_DIRECTORY)
		at.Close()
		if err != nil {
			return nil, err
		}
		at, below = next, below[1:]
	}
}

func openTrustedFile(dir *os.File, name string) (*os.File, error) {
	f, err := openBelow(dir, name, unix.O_NONBLOCK)
	if err != nil {
		return nil, err
	}
	if err := checkTrusted(f, unix.S_IFREG); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func openBelow(dir *os.File, name string, flags int) (*os.File, error) {
	path := filepath.Join(dir.Name(), name)
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC|flags, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

func checkTrustedDir(path string) error {
	f, err := openTrustedDir(path)
	if err != nil {
		return err
	}
	return f.Close()
}

// checkTrusted refuses what anybody but root, or the caller, could change, and
// a file with a second name.
func checkTrusted(f *os.File, kind uint32) error {
	if err := checkOwner(f, kind); err != nil || kind != unix.S_IFREG {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return err
	}
	if st.Nlink != 1 {
		return fmt.Errorf("%s has %d names, want one", f.Name(), st.Nlink)
	}
	return nil
}

// checkOwner refuses what anybody but root, or the caller, could change.
func checkOwner(f *os.File, kind uint32) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return err
	}
	switch {
	case st.Mode&unix.S_IFMT != kind:
		return fmt.Errorf("%s is of the wrong kind", f.Name())
	case st.Uid != 0 && int(st.Uid) != os.Geteuid():
		return fmt.Errorf("%s belongs to uid %d, not to root", f.Name(), st.Uid)
	case st.Mode&0o022 != 0:
		return fmt.Errorf("%s may be written by others than root", f.Name())
	}
	return nil
}
