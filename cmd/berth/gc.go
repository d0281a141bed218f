package main

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/berth-hpc/berth/cmd/internal/config"
	"github.com/berth-hpc/berth/imagecache"
	"github.com/berth-hpc/berth/imagecache/store"
	"github.com/berth-hpc/berth/prolog"
	"github.com/berth-hpc/berth/prolog/jobstate"
)

// gcCmd removes what nobody needs: for users from their own store, for root
// from the node's, too.
type gcCmd struct {
	tier
	DryRun    bool          `help:"Only say what would be removed."`
	UnusedFor time.Duration `placeholder:"DURATION" help:"Also remove images that were not used for so long, as in 720h."`
	JSON      bool          `name:"json" help:"Print what was removed as JSON."`
}

// A collected is what gc removed, as `--json` prints it.
type collected struct {
	DryRun  bool             `json:"dry_run"`
	Reaped  []jobstate.JobID `json:"reaped_jobs"`
	Removed []store.Removal  `json:"removed"`
	Bytes   int64            `json:"removed_bytes"` // of images
}

func (d *collected) add(removed []store.Removal) {
	d.Removed = append(d.Removed, removed...)
	for _, r := range removed {
		d.Bytes += r.Size
	}
}

// Run prints what it removed, also when something fails.
func (c *gcCmd) Run(ctx context.Context, s *session) error {
	cfg, err := s.settings()
	if err != nil {
		return err
	}
	done := collected{DryRun: c.DryRun, Reaped: []jobstate.JobID{}, Removed: []store.Removal{}}
	err = c.collect(ctx, s, cfg, &done)
	if c.JSON {
		if perr := s.printJSON(done); err == nil {
			err = perr
		}
		return err
	}
	printCollected(s.stdout, done)
	return err
}

func (c *gcCmd) collect(ctx context.Context, s *session, cfg *config.Config, done *collected) error {
	if s.user.uid == 0 && !c.DryRun && !c.Cluster {
		done.Reaped = append(done.Reaped, s.reap(ctx)...)
	}
	places, err := c.places(ctx, s, cfg)
	if err != nil {
		return err
	}
	for _, p := range places {
		if p.cluster != nil {
			return c.collectCluster(ctx, p, done)
		}
		if p.space == nil {
			continue
		}
		p.space.Reap = nil // done
		removed, err := p.space.Collect(ctx, store.Collection{DryRun: c.DryRun, UnusedFor: c.UnusedFor})
		done.add(removed)
		if p.node && !c.DryRun {
			s.noteEvicted(ctx, removed)
		}
		if err != nil {
			return err
		}
		if !p.node && !c.DryRun {
			answers(cfg).Sweep()
		}
	}
	return nil
}

// noteEvicted counts what went of the node's store.
func (s *session) noteEvicted(ctx context.Context, removed []store.Removal) {
	images, bytes := 0, int64(0)
	for _, r := range removed {
		if !r.Digest.IsZero() {
			images, bytes = images+1, bytes+r.Size
		}
	}
	if site, err := s.site(); err == nil {
		site.NoteEvicted(ctx, images, bytes)
	}
}

// reap ends what jobs left whose epilog never ran. That it cannot be done must
// not keep images from going that no job uses.
func (s *session) reap(ctx context.Context) []jobstate.JobID {
	site, err := s.site()
	var reaped []jobstate.JobID
	if err == nil {
		reaped, err = prolog.Reap(ctx, site)
	}
	if err != nil {
		s.log.WithError(err).Warn("look for jobs whose epilog never ran")
	}
	return reaped
}

func printCollected(out io.Writer, done collected) {
	verb := "removed"
	if done.DryRun {
		verb = "would remove"
	}
	for _, job := range done.Reaped {
		fmt.Fprintf(out, "ended    job %s, whose epilog never ran\n", job)
	}
	for _, r := range done.Removed {
		if r.Digest.IsZero() {
			fmt.Fprintf(out, "%s %s: %s\n", verb, r.Path, r.Reason)
			continue
		}
		fmt.Fprintf(out, "%s %s, %s, last used %s: %s\n", verb, r.Digest, megabytes(r.Size), r.LastUse.Local().Format(time.DateTime), r.Reason)
	}
	fmt.Fprintf(out, "%s of images\n", megabytes(done.Bytes))
}

// answers are those that registries gave this user lately.
func answers(cfg *config.Config) imagecache.Answers {
	return imagecache.NewAnswers(filepath.Join(cfg.Store.UserDir, "resolve"), cfg.Resolve.TTL)
}
