package store

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"
)

// A Collection is what Collect is to do beyond what nobody can miss.
type Collection struct {
	DryRun bool // only find out
	// UnusedFor, unless it is zero, removes images that were not used for that
	// long, too.
	UnusedFor time.Duration
}

// Reasons why Collect removes something.
const (
	ReasonOutdated = "outdated" // made by an older policy
	ReasonUnused   = "unused"   // not used for as long as was asked
	ReasonSpace    = "space"    // over the quota, or too little of the disk free
	ReasonGarbage  = "garbage"  // left by a process that was killed
)

// A Removal is one thing that Collect removed, or would.
type Removal struct {
	Path    string    `json:"path"`
	Digest  Digest    `json:"digest,omitzero"` // of an image
	Size    int64     `json:"size_bytes"`      // zero when nobody has counted
	LastUse time.Time `json:"last_use,omitzero"`
	Reason  string    `json:"reason"`
}

// Collect removes from the store what nobody can miss: work that a killed
// process left, trees whose image is gone, images of older policies, keeps
// that are over; then images by c, and by the limits as far as that can be
// done. It never removes what somebody uses or keeps.
func (sp *Space) Collect(ctx context.Context, c Collection) ([]Removal, error) {
	unlock, err := sp.Store.lockSpace(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if sp.Reap != nil && !c.DryRun {
		sp.Reap(ctx)
	}
	removed, err := sp.Store.collectGarbage(ctx, sp.Users, c.DryRun)
	if err != nil {
		return removed, err
	}
	images, err := sp.collectImages(ctx, c)
	return append(removed, images...), err
}

func (sp *Space) collectImages(ctx context.Context, c Collection) (removed []Removal, err error) {
	entries, err := sp.Store.Entries()
	if err != nil {
		return nil, err
	}
	u, err := sp.usage("")
	if err != nil {
		return nil, err
	}
	goal := u.goal(sp.Limits, 0)
	for _, e := range entries {
		reason := reasonFor(e, c, goal)
		if reason == "" || e.Keep != nil {
			continue
		}
		gone, err := sp.take(ctx, e, c.DryRun)
		if err != nil {
			return removed, err
		}
		if gone {
			goal -= e.Size
			removed = append(removed, Removal{e.Dir(), e.Digest(), e.Size, e.LastUse, reason})
		}
	}
	return removed, nil
}

// reasonFor says why e is to go while goal bytes have to; "" when it stays.
func reasonFor(e Entry, c Collection, goal int64) string {
	switch {
	case e.Outdated:
		return ReasonOutdated
	case c.UnusedFor > 0 && time.Since(e.LastUse) >= c.UnusedFor:
		return ReasonUnused
	case goal > 0:
		return ReasonSpace
	}
	return ""
}

// take removes e unless somebody uses it, or says whether it could.
func (sp *Space) take(ctx context.Context, e Entry, dryRun bool) (bool, error) {
	if ctx.Err() != nil {
		return false, context.Cause(ctx)
	}
	if dryRun {
		by, err := sp.Users.Of(ctx, e.Image)
		return len(by) == 0, err
	}
	err := sp.Store.evict(ctx, e.Image, sp.Users)
	var used *InUseError
	if errors.As(err, &used) {
		return false, nil
	}
	return err == nil, err
}

// collectGarbage removes what dead processes left, trees without an image, and
// keeps that are over.
func (s *Store) collectGarbage(ctx context.Context, users Users, dryRun bool) (removed []Removal, err error) {
	for _, key := range s.workKeys() {
		found, err := s.deadWork(key, dryRun)
		if err != nil {
			return removed, err
		}
		removed = append(removed, found...)
	}
	for _, im := range s.orphans() {
		gone, err := (&Space{Store: s, Users: users}).take(ctx, Entry{Image: im}, dryRun)
		if err != nil {
			return removed, err
		}
		if gone {
			removed = append(removed, Removal{Path: im.Tree(), Reason: ReasonGarbage})
		}
	}
	if !dryRun {
		s.forgetKeeps(time.Now())
	}
	return removed, nil
}

// deadWork removes the work folders of key if nobody holds its lock.
func (s *Store) deadWork(key string, dryRun bool) ([]Removal, error) {
	lock, err := s.tryLockKey(key)
	if err != nil || lock == nil {
		return nil, err
	}
	var found []Removal
	for _, dir := range []string{s.tmpDir(), s.newDir()} {
		paths, _ := filepath.Glob(filepath.Join(dir, key+".*"))
		for _, path := range paths {
			found = append(found, Removal{Path: path, Reason: ReasonGarbage})
		}
	}
	if dryRun {
		return found, lock.file.Close()
	}
	return found, lock.Release()
}

// orphans are the trees whose image is gone, as images that have nothing else.
func (s *Store) orphans() (orphans []Image) {
	trees, _ := os.ReadDir(s.treesDir())
	for _, t := range trees {
		im, _, ok := s.imageNamed(t.Name())
		if !ok {
			continue
		}
		if _, err := os.Lstat(im.dir); errors.Is(err, os.ErrNotExist) {
			orphans = append(orphans, im)
		}
	}
	return orphans
}
