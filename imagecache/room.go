package imagecache

import (
	"context"
	"errors"
	"math"
	"os"

	"golang.org/x/sys/unix"

	"github.com/berth-hpc/berth/imagecache/store"
)

const (
	// roomSlack is what the squashfs file may have on top of its layers, in
	// bytes, besides a sixteenth of them: it is about as large, sometimes more
	// where layers were compressed harder than we do.
	roomSlack = 64 << 10
	// unpackedRatio is how much larger a tree is than its compressed layers.
	// Images of Linux distributions and of Python packages have 2.5 to 3.5.
	unpackedRatio = 4
)

// expectedBytes is how much disk a fetch of im takes at its height, as far as
// the sizes of its compressed layers tell. What the manifest says of them is
// checked only when they arrive.
func expectedBytes(im *image, local bool, c Converter) int64 {
	var layers int64
	for _, l := range im.layers {
		layers += min(max(l.Size, 0), math.MaxInt64/16-layers)
	}
	squashed := layers + layers/16 + roomSlack
	switch {
	case c.Streams():
		return squashed
	case local:
		return squashed + unpackedRatio*layers
	}
	return squashed + (unpackedRatio+1)*layers // their files, too
}

// IsFull says whether err means that the disk, or the user's share of it, is
// full: making room may help.
func IsFull(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }

// fetchInto fetches d into a work folder of lock and returns that. When the
// disk becomes full in spite of the reservation, because the guess was too low
// or others write there, it makes room once more and starts over.
func fetchInto(ctx context.Context, lock *store.Lock, ref Reference, d store.Digest, opts FetchOptions) (string, error) {
	var reserved int64
	opts.Reserve = func(ctx context.Context, bytes int64) error {
		reserved = bytes
		return opts.Space.Reserve(ctx, lock, bytes)
	}
	dir, err := fetchOnce(ctx, lock, ref, d, opts)
	if err == nil || !IsFull(err) {
		return dir, err
	}
	if eerr := lock.Empty(); eerr != nil {
		return "", errors.Join(err, eerr)
	}
	if freed, ferr := opts.Space.Free(ctx, lock, reserved); ferr != nil || freed == 0 {
		return "", err
	}
	return fetchOnce(ctx, lock, ref, d, opts)
}

func fetchOnce(ctx context.Context, lock *store.Lock, ref Reference, d store.Digest, opts FetchOptions) (string, error) {
	dir, err := lock.TempDir(os.Geteuid(), os.Getegid())
	if err != nil {
		return "", err
	}
	return dir, Fetch(ctx, ref, d, dir, opts)
}
