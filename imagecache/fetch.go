package imagecache

import (
	"context"

	"github.com/berth-hpc/berth/imagecache/store"
)

// FetchOptions say how Fetch works. The zero value is usable.
type FetchOptions struct {
	Network  Network
	Platform Platform // zero means this machine's
	// Converter defaults to Umoci.
	Converter Converter
	// Parallel is how many layers are transferred at once; 0 means 3.
	Parallel int
	Progress ProgressFunc // may be nil
	// Version is Berth's version, for the record.
	Version string
}

// Fetch gets the image d, which Resolve said ref names, and converts it. dir
// is an empty folder, usually Lock.TempDir's. On success it holds
// exactly rootfs.sqfs, image.json and record.json, synced and ready for
// Store.Publish; on failure whatever was left.
//
// Fetch writes below dir only, and needs no privilege: on managed nodes it
// runs as the account that pulls, in its own pid namespace.
func Fetch(ctx context.Context, ref Reference, d store.Digest, dir string, opts FetchOptions) error {
	panic("soon")
}
