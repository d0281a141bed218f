package prolog

import (
	"context"

	"github.com/berth-hpc/berth/imagecache/store"
	"github.com/berth-hpc/berth/launcher"
	"github.com/berth-hpc/berth/prolog/jobstate"
)

// leases are the users of the node's store: the jobs, and users' own processes,
// that lease its images.
type leases struct{ runDir string }

// Of implements store.Users.
func (l leases) Of(_ context.Context, im store.Image) ([]string, error) {
	leased, err := jobstate.Leased(l.runDir)
	return leased[im.Key()], err
}

// IfUnused implements store.Users. It holds the lock under which images are
// leased; what is mounted without a lease goes first, or it would keep the
// disk's blocks.
func (l leases) IfUnused(ctx context.Context, im store.Image, remove func() error) error {
	if !known(l.runDir) {
		return remove()
	}
	return withImages(ctx, l.runDir, func(mounts *launcher.Mounts) error {
		if err := endSessions(l.runDir); err != nil {
			return err
		}
		by, err := l.Of(ctx, im)
		if err != nil {
			return err
		}
		if len(by) > 0 {
			return &store.InUseError{By: by}
		}
		if err := mounts.UnmountImage(ctx, im.Key()); err != nil {
			return err
		}
		return remove()
	})
}

// Space is what keeps the node's store within the site's limits. Only root
// may use it for more than Users.Of.
func Space(cfg Config, st *store.Store) *store.Space {
	return &store.Space{
		Store: st, Limits: cfg.Limits, Users: leases{cfg.RunDir},
		Reap: func(ctx context.Context) { _, _ = Reap(ctx, cfg) },
	}
}
