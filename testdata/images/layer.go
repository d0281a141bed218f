package images

import (
	"archive/tar"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/gzip"
	"golang.org/x/sys/unix"
)

// layerOf makes a layer of the folder dir, which may be the upper folder of
// an overlay over lower: what was removed there becomes a whiteout. The
// compressed layer is kept in the file blob. No entry is younger than newest,
// so that the same tree gives the same layer.
func layerOf(dir string, lower tree, blob string, newest time.Time) (v1.Layer, error) {
	f, err := os.Create(blob)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	zip := gzip.NewWriter(f)
	if err := writeTar(zip, dir, lower, newest); err != nil {
		return nil, fmt.Errorf("pack %s: %w", dir, err)
	}
	if err := zip.Close(); err != nil {
		return nil, err
	}
	return tarball.LayerFromFile(blob, tarball.WithMediaType(types.OCILayer))
}

func writeTar(w io.Writer, dir string, lower tree, newest time.Time) error {
	p := &packer{
		Writer: tar.NewWriter(w), dir: dir, lower: lower, newest: newest.Truncate(time.Second),
		first: map[uint64]string{},
	}
	// WalkDir goes in lexical order: the same tree gives the same tar.
	if err := filepath.WalkDir(dir, p.add); err != nil {
		return err
	}
	return p.Close()
}

// A packer writes the files below dir as a tar archive.
type packer struct {
	*tar.Writer
	dir    string
	lower  tree
	newest time.Time
	first  map[uint64]string // inode with several names -> its name in the archive
}

func (p *packer) add(path string, d fs.DirEntry, err error) error {
	if err != nil || path == p.dir {
		return err
	}
	name, err := filepath.Rel(p.dir, path)
	if err != nil {
		return err
	}
	fi, err := d.Info()
	if err != nil {
		return err
	}
	st := fi.Sys().(*syscall.Stat_t)
	switch {
	case fi.Mode()&fs.ModeSocket != 0:
		return nil
	case fi.Mode()&fs.ModeCharDevice != 0 && st.Rdev == 0: // overlayfs's whiteout
		return p.whiteout(filepath.Join(filepath.Dir(name), ".wh."+filepath.Base(name)))
	}
	h, err := p.header(path, name, fi, st)
	if err != nil {
		return err
	}
	if err := p.WriteHeader(h); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	switch {
	case h.Typeflag == tar.TypeReg:
		return p.content(path)
	case fi.IsDir() && p.hides(path, name):
		return p.whiteout(filepath.Join(name, ".wh..wh..opq"))
	}
	return nil
}

// hides reports whether a folder takes the place of one below it. Overlayfs
// calls every new folder opaque; the others need no entry for that.
func (p *packer) hides(path, name string) bool {
	return xattr(path, "trusted.overlay.opaque") == "y" &&
		slices.ContainsFunc(p.lower, func(dir string) bool {
			_, err := os.Lstat(filepath.Join(dir, name))
			return err == nil
		})
}

func (p *packer) header(path, name string, fi fs.FileInfo, st *syscall.Stat_t) (*tar.Header, error) {
	target := ""
	if fi.Mode()&fs.ModeSymlink != 0 {
		var err error
		if target, err = os.Readlink(path); err != nil {
			return nil, err
		}
	}
	h, err := tar.FileInfoHeader(fi, target)
	if err != nil {
		return nil, err
	}
	h.Name, h.Format = name, tar.FormatPAX
	if fi.IsDir() {
		h.Name += "/"
	}
	h.Uname, h.Gname = "", "" // the host's names
	h.AccessTime, h.ChangeTime = time.Time{}, time.Time{}
	if h.ModTime = h.ModTime.Truncate(time.Second); h.ModTime.After(p.newest) {
		h.ModTime = p.newest
	}
	if capability := xattr(path, "security.capability"); capability != "" {
		h.PAXRecords = map[string]string{"SCHILY.xattr.security.capability": capability}
	}
	p.link(h, st)
	return h, nil
}

// link turns h into a hard link when another name of the file is already in
// the archive.
func (p *packer) link(h *tar.Header, st *syscall.Stat_t) {
	if h.Typeflag != tar.TypeReg || st.Nlink < 2 {
		return
	}
	if first, seen := p.first[st.Ino]; seen {
		h.Typeflag, h.Linkname, h.Size = tar.TypeLink, first, 0
		return
	}
	p.first[st.Ino] = h.Name
}

func (p *packer) content(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(p, f)
	return err
}

func (p *packer) whiteout(name string) error {
	return p.WriteHeader(&tar.Header{
		Typeflag: tar.TypeReg, Name: strings.TrimPrefix(name, "./"), Mode: 0o644,
		ModTime: p.newest, Format: tar.FormatPAX,
	})
}

// xattr returns an attribute's value, "" when there is none.
func xattr(path, name string) string {
	value := make([]byte, 256)
	n, err := unix.Lgetxattr(path, name, value)
	if err != nil {
		return ""
	}
	return string(value[:n])
}
