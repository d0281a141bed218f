package imagefile

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
)

// A Kind is what a file or folder turned out to be.
type Kind int

const (
	// Unknown is nothing that can be an image.
	Unknown Kind = iota
	// Squashfs is a squashfs file: mksquashfs, enroot import.
	Squashfs
	// SIF is a file in the Singularity Image Format: apptainer pull.
	SIF
	// Archive is a tar file, perhaps compressed: docker save, podman save.
	Archive
	// Tree is a folder whose content is a root file system.
	Tree
	// OCILayout is a folder in the OCI image layout.
	OCILayout
	// DockerDir is a folder with a manifest and blobs: skopeo's dir:, and
	// podman save --format docker-dir.
	DockerDir
)

// Identify looks at the file or folder at path. Symbolic links are followed.
func Identify(path string) (Kind, error) {
	info, err := os.Stat(path)
	if err != nil {
		return Unknown, err
	}
	if info.IsDir() {
		return IdentifyFolder(path), nil
	}
	if !info.Mode().IsRegular() {
		return Unknown, &os.PathError{Op: "open", Path: path, Err: errors.New("it is neither a file nor a folder")}
	}
	f, err := os.Open(path)
	if err != nil {
		return Unknown, err
	}
	defer f.Close()
	return IdentifyFile(f)
}

// IdentifyFolder tells images in folders from trees, by the files that their
// formats prescribe.
func IdentifyFolder(dir string) Kind {
	switch {
	case isFile(dir, "oci-layout") && isFile(dir, "index.json"):
		return OCILayout
	case isFile(dir, "manifest.json") && startsWith(filepath.Join(dir, "version"), dirMark):
		return DockerDir
	}
	return Tree
}

func isFile(dir, name string) bool {
	info, err := os.Stat(filepath.Join(dir, name))
	return err == nil && info.Mode().IsRegular()
}

func startsWith(path string, mark []byte) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	start := make([]byte, len(mark))
	_, err = io.ReadFull(f, start)
	return err == nil && bytes.Equal(start, mark)
}

// The first bytes of formats, and where they are if not at the start.
var (
	squashfsMagic = []byte("hsqs")
	sifMagic      = []byte("SIF_MAGIC\x00")
	tarMagic      = []byte("ustar")
	gzipMagic     = []byte{0x1f, 0x8b}
	zstdMagic     = []byte{0x28, 0xb5, 0x2f, 0xfd}
	xzMagic       = []byte{0xfd, '7', 'z', 'X', 'Z', 0}
	// containers/image, directory/directory_dest.go
	dirMark = []byte("Directory Transport Version")
)

const tarMagicAt = 257

// IdentifyFile tells files by their first bytes.
func IdentifyFile(f io.ReaderAt) (Kind, error) {
	start := make([]byte, 512)
	n, err := f.ReadAt(start, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return Unknown, err
	}
	start = start[:n]
	switch {
	case bytes.HasPrefix(start, squashfsMagic):
		return Squashfs, nil
	case hasAt(start, sifMagic, sifMagicAt):
		return SIF, nil
	case hasAt(start, tarMagic, tarMagicAt), bytes.HasPrefix(start, gzipMagic), bytes.HasPrefix(start, zstdMagic),
		bytes.HasPrefix(start, xzMagic):
		return Archive, nil
	}
	return Unknown, nil
}

func hasAt(b, mark []byte, at int) bool { return len(b) >= at && bytes.HasPrefix(b[at:], mark) }
