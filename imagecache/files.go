package imagecache

import (
	"context"
	"io"
	"os"
	"path/filepath"
)

// files are the named parts of an image on this machine.
type files interface {
	// small returns a manifest or config, of at most limit bytes.
	small(name string, limit int64) ([]byte, error)
	// open opens any of them.
	open(ctx context.Context, name string) (io.ReadCloser, error)
}

// folder is files in a folder.
type folder string

func (d folder) small(name string, limit int64) ([]byte, error) {
	return readFile(filepath.Join(string(d), name), limit)
}

func (d folder) open(_ context.Context, name string) (io.ReadCloser, error) {
	return os.Open(filepath.Join(string(d), name))
}

func readFile(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readLimited(f, limit)
}
