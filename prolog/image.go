package prolog

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/imagecache/store"
	"github.com/berth-hpc/berth/launcher"
	"github.com/berth-hpc/berth/prolog/jobstate"
)

// useImage leases im, which the job's user is entitled to, and mounts it on the
// node.
func (w *worker) useImage(ctx context.Context, im store.Image) (*jobstate.Ready, error) {
	if err := w.mustBeEntitled(im.Digest()); err != nil {
		return nil, err
	}
	w.noteRights(im)
	defer w.phases.begin("mount")()
	key, runDir := store.Key(im.Digest()), w.cfg.RunDir
	err := withImages(ctx, runDir, func(mounts *launcher.Mounts) error {
		file, err := im.Open() // before the lease: see jobstate.SetLease
		if err != nil {
			return err
		}
		defer file.Close()
		_ = im.Touch() // a full or read-only disk must not keep a job from its image
		if err := w.setLease(key); err != nil {
			return fmt.Errorf("lease: %w", err)
		}
		return mounts.MountImage(ctx, key, file)
	})
	if err != nil {
		return nil, fault.Wrap("mount image", im.Digest().String(), fault.Site,
			"ask your administrator to run on this node: berth doctor", err)
	}
	return &jobstate.Ready{Digest: im.Digest().String(), Mount: key, Dir: im.Dir()}, nil
}

// setLease is the job's, or that of the user's own process.
func (w *worker) setLease(key string) error {
	if w.session != nil {
		return jobstate.SetSessionLease(w.cfg.RunDir, *w.session, key)
	}
	return jobstate.SetLease(w.cfg.RunDir, w.req.Job, key)
}

// endSessions ends the leases of users' processes that are gone.
func endSessions(runDir string) error {
	return jobstate.EndSessions(runDir, store.ProcessStart)
}

// releaseImages unmounts every image that nobody leases.
func releaseImages(ctx context.Context, runDir string) error {
	return withImages(ctx, runDir, func(mounts *launcher.Mounts) error {
		if err := endSessions(runDir); err != nil {
			return err
		}
		leased, err := jobstate.Leased(runDir)
		if err != nil {
			return err
		}
		mounted, err := mounts.Images()
		for _, key := range mounted {
			if len(leased[key]) == 0 {
				err = errors.Join(err, mounts.UnmountImage(ctx, key))
			}
		}
		return err
	})
}

// withImages calls f under the node's lock on leases and mounts: a lease and
// its mount appear together, and no mount goes while its lease is written.
func withImages(ctx context.Context, runDir string, f func(*launcher.Mounts) error) error {
	mounts, err := launcher.OpenMounts(ctx, runDir)
	if err != nil {
		return err
	}
	defer mounts.Close()
	lock, err := os.OpenFile(filepath.Join(runDir, "images.lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := launcher.Flock(ctx, lock); err != nil {
		return fmt.Errorf("lock the node's images: %w", err)
	}
	return f(mounts)
}
