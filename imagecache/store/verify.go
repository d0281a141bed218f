package store

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	"github.com/berth-hpc/berth/fault"
)

// ErrDamaged is the cause when an image's file is not what was published.
var ErrDamaged = errors.New("the image's file is not what was written")

// Hash returns the SHA-256 of what r holds, as it stands in a Record.
func Hash(ctx context.Context, r io.Reader) (string, error) {
	sum := sha256.New()
	buf := make([]byte, 1<<20)
	for {
		if ctx.Err() != nil {
			return "", context.Cause(ctx)
		}
		n, err := r.Read(buf)
		sum.Write(buf[:n])
		if err == io.EOF {
			return hex.EncodeToString(sum.Sum(nil)), nil
		}
		if err != nil {
			return "", err
		}
	}
}

// Verify reads the whole squashfs file and compares it with its record. The
// error is ErrDamaged when they differ, when the disk cannot read the file, or
// when a file of the image is missing. It takes about a second per GB.
//
// Nothing else finds a bit that flipped on disk for sure: squashfs has no
// checksums, so that a container may get EIO or, as easily, wrong bytes.
func (im Image) Verify(ctx context.Context) error {
	err := im.verify(ctx)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		return fault.Wrap("verify image", im.digest.String(), fault.Site,
			"look at the disk below the store; Berth pulls the image again", fmt.Errorf("%w: %w", ErrDamaged, err))
	}
	return nil
}

func (im Image) verify(ctx context.Context) error {
	record, err := im.Record()
	if err != nil {
		return err
	}
	f, err := im.Open()
	if err != nil {
		return err
	}
	defer f.Close()
	got, err := Hash(ctx, f)
	if err == nil && got != record.SHA256 {
		err = fmt.Errorf("its SHA-256 is %s, not %q", got, record.SHA256)
	}
	return err
}
