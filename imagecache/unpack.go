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
	"strings"
	"time"

	securejoin "github.com/cyphar/filepath-securejoin"
	"github.com/opencontainers/umoci/oci/layer"
)

// unpacker applies layers to a folder with umoci, one entry at a time, after
// the policy has been applied to the entry. With the policy's owners
// and modes everything that umoci does is allowed to any user, so the same code
// runs for root and for everybody else.
type unpacker struct {
	root       string
	known      string // a folder that exists, as an entry's name has it
	sawDevices bool
	budget     *budget
	extract    *layer.TarExtractor
}

// epoch is the time of folders that no layer has an entry for.
var epoch = time.Unix(0, 0)

func newUnpacker(root string, b *budget) (*unpacker, error) {
	if err := os.Mkdir(root, 0o755); err != nil {
		return nil, err
	}
	// The root folder's mode and time must not depend on umask and clock.
	return &unpacker{root: root, budget: b}, errors.Join(os.Chmod(root, 0o755), os.Chtimes(root, epoch, epoch))
}

// apply unpacks one layer and reads its stream to the end.
func (u *unpacker) apply(ctx context.Context, stream io.Reader) error {
	u.extract = layer.NewTarExtractor(&layer.UnpackOptions{
		OnDiskFormat: layer.DirRootfs{MapOptions: layer.MapOptions{Rootless: true}},
	})
	u.known = ""
	tr := tar.NewReader(stream)
	for {
		h, err := tr.Next()
		if err == io.EOF {
			// Padding may follow the tar; digests are known at the end only.
			_, err = io.Copy(io.Discard, stream)
			return err
		}
		if err == nil {
			err = ctx.Err()
		}
		if err == nil {
			err = u.entry(h, tr)
		}
		if err != nil {
			return entryError(err)
		}
	}
}

// entryError says of an error that neither the stream nor this machine is to
// blame for that the image is: no tar, or entries that cannot be.
func entryError(err error) error {
	if isOurs(err) {
		return err
	}
	return damaged("%w", err)
}

func (u *unpacker) entry(h *tar.Header, content io.Reader) error {
	name := strings.TrimPrefix(path.Clean("/"+h.Name), "/")
	device := h.Typeflag == tar.TypeChar || h.Typeflag == tar.TypeBlock
	if !applyPolicy(h) {
		return nil
	}
	if err := u.budget.spend(h); err != nil {
		return err
	}
	whiteout := strings.HasPrefix(path.Base(name), ".wh.")
	if whiteout && leadsOut(path.Base(name)) {
		return fmt.Errorf("unpack %s: it would hide the folder that it is in", quote(h.Name))
	}
	u.sawDevices = u.sawDevices || device && !whiteout
	if !whiteout {
		if err := u.needFolder(parent(name)); err != nil {
			return err
		}
	}
	if h.Typeflag != tar.TypeReg || whiteout || parent(name) == "" {
		u.known = "" // it may take the place of a folder, or of a link to one
	}
	return u.put(h, content)
}

// leadsOut reports whether a whiteout is for "." or "..". umoci 0.6.0 would
// remove the folder itself, or the one above: of the root, that is outside.
func leadsOut(base string) bool { return base == ".wh.." || base == ".wh..." }

// put hands an entry to umoci.
func (u *unpacker) put(h *tar.Header, content io.Reader) error {
	if err := u.extract.UnpackEntry(u.root, h, content); err != nil {
		return fmt.Errorf("unpack %s: %w", quote(h.Name), err)
	}
	return nil
}

func parent(name string) string {
	if dir := path.Dir(name); dir != "." {
		return dir
	}
	return ""
}

// needFolder makes the folder that an entry without folder entries of its own
// lies in. umoci would, too, but with the mode and the time of the moment.
func (u *unpacker) needFolder(dir string) error {
	if dir == "" || dir == u.known {
		return nil
	}
	full, err := securejoin.SecureJoin(u.root, dir)
	if err != nil {
		return err
	}
	info, err := os.Lstat(full)
	if err != nil && !securejoin.IsNotExist(err) {
		return err
	}
	u.known = ""
	if err == nil && info.IsDir() {
		if full == filepath.Join(u.root, dir) {
			u.known = dir // without links on the way, which the entry might replace
		}
		return nil
	}
	rel, err := filepath.Rel(u.root, full)
	if err != nil {
		return err
	}
	if err := u.needFolder(parent(rel)); err != nil {
		return err
	}
	if err := u.budget.spend(&tar.Header{Name: rel}); err != nil {
		return err
	}
	return u.put(&tar.Header{Name: rel, Typeflag: tar.TypeDir, Mode: 0o755, ModTime: epoch}, nil)
}

// finish removes what stood for device nodes.
func (u *unpacker) finish() error {
	if !u.sawDevices {
		return nil
	}
	return filepath.WalkDir(u.root, func(name string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		info, err := e.Info()
		if err != nil || info.Mode().Perm() != deviceMode {
			return err
		}
		return removeQuietly(name)
	})
}

// removeQuietly removes a file and leaves its folder's time as it was.
func removeQuietly(name string) error {
	dir := filepath.Dir(name)
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	return errors.Join(os.Remove(name), os.Chtimes(dir, info.ModTime(), info.ModTime()))
}
