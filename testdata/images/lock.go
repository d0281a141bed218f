package images

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// lock takes the lock file path, made when missing, and returns how to let
// it go. It waits until ctx ends. A lock ends with its process.
func lock(ctx context.Context, path string) (unlock func(), err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, cannotWrite(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, cannotWrite(err)
	}
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, errors.Join(err, f.Close())
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("wait for another build (%s): %w", path, ctx.Err()), f.Close())
		}
	}
}

// cannotWrite tells a user whose cache belongs to root where to put another.
func cannotWrite(err error) error {
	if errors.Is(err, os.ErrPermission) {
		return fmt.Errorf("%w: the cache is somebody else's (set BERTH_TEST_CACHE): %w", ErrCannot, err)
	}
	return err
}
