package images

import (
	"archive/tar"
	"bytes"
	"cmp"
	"io"
	"io/fs"
	"path"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// A File is one entry of a layer, written to the tar as it stands: also names
// no packer would write (a whiteout, "../x", the same name twice).
type File struct {
	Name string
	Body string      // content of a regular file
	Link string      // target, for the types that have one
	Type byte        // of archive/tar; 0 is a folder if Name ends in "/", else a regular file
	Mode fs.FileMode // permission bits and setuid, setgid, sticky; 0 is 0755 for folders, else 0644

	UID, GID     int
	Major, Minor int64             // of a device
	Xattrs       map[string]string // name -> value
}

// Dir is a folder, 0755. Names of entries have no leading slash.
func Dir(name string) File { return File{Name: name + "/"} }

// Text is a file, 0644.
func Text(name, body string) File { return File{Name: name, Body: body} }

// Program is a file, 0755.
func Program(name, body string) File { return File{Name: name, Body: body, Mode: 0o755} }

// Symlink is a symbolic link called name.
func Symlink(name, target string) File {
	return File{Name: name, Link: target, Type: tar.TypeSymlink}
}

// Hardlink is a further name of the file first, of this layer or a lower one.
func Hardlink(name, first string) File {
	return File{Name: name, Link: first, Type: tar.TypeLink}
}

// Whiteout removes name as lower layers have it.
func Whiteout(name string) File {
	dir, base := path.Split(name)
	return Text(dir+".wh."+base, "")
}

// Opaque removes what lower layers have in the folder dir.
func Opaque(dir string) File { return Text(dir+"/.wh..wh..opq", "") }

// FromFiles makes an image in memory, with one layer for each list.
func FromFiles(cfg v1.Config, layers ...[]File) (v1.Image, error) {
	var steps []step
	for _, files := range layers {
		layer, err := fileLayer(files)
		if err != nil {
			return nil, err
		}
		steps = append(steps, step{layer, "files"})
	}
	return assemble(nil, cfg, fileTime(), steps...)
}

// fileTime is when all files in memory were made: the same files give the
// same digest.
func fileTime() time.Time { return time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC) }

func fileLayer(files []File) (v1.Layer, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		if err := w.WriteHeader(f.header()); err != nil {
			return nil, err
		}
		if _, err := io.WriteString(w, f.Body); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	open := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil }
	return tarball.LayerFromOpener(open, tarball.WithMediaType(types.OCILayer))
}

func (f File) header() *tar.Header {
	kind, mode := byte(tar.TypeReg), fs.FileMode(0o644)
	if n := len(f.Name); n > 0 && f.Name[n-1] == '/' {
		kind, mode = tar.TypeDir, 0o755
	}
	h := &tar.Header{
		Typeflag: cmp.Or(f.Type, kind), Name: f.Name, Linkname: f.Link, Size: int64(len(f.Body)),
		Mode: tarMode(cmp.Or(f.Mode, mode)), Uid: f.UID, Gid: f.GID,
		Devmajor: f.Major, Devminor: f.Minor, ModTime: fileTime(), Format: tar.FormatPAX,
	}
	for name, value := range f.Xattrs {
		if h.PAXRecords == nil {
			h.PAXRecords = map[string]string{}
		}
		h.PAXRecords["SCHILY.xattr."+name] = value
	}
	return h
}

func tarMode(m fs.FileMode) int64 {
	mode := int64(m.Perm())
	for bit, value := range map[fs.FileMode]int64{fs.ModeSetuid: 0o4000, fs.ModeSetgid: 0o2000, fs.ModeSticky: 0o1000} {
		if m&bit != 0 {
			mode |= value
		}
	}
	return mode
}
