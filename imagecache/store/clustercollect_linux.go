package store

import (
	"context"
	"errors"
)

// Collect removes from the cluster's store what nobody can miss: what the dead
// left, and images of older policies; then images by col and over the quota,
// those that were not used for longest first. It never removes what a node has
// leased or somebody keeps. A writer's root calls it; it may take a little
// longer than Stale.
func (c *Cluster) Collect(ctx context.Context, col Collection) ([]Removal, error) {
	if !col.DryRun {
		if err := c.Tidy(ctx); err != nil {
			return nil, err
		}
	}
	return c.collectImages(col, "")
}

// collectImages spares the image of key.
func (c *Cluster) collectImages(col Collection, key string) (removed []Removal, err error) {
	entries, err := c.Entries()
	if err != nil {
		return nil, err
	}
	goal := c.excess(entries)
	for _, e := range entries {
		reason := reasonFor(e, col, goal)
		if reason == "" || e.Keep != nil || e.Key() == key {
			continue
		}
		if col.DryRun {
			err = c.inUse(e.Key())
		} else {
			err = c.Remove(e.Image)
		}
		var used *InUseError
		if errors.As(err, &used) {
			continue
		}
		if err != nil {
			return removed, err
		}
		goal -= e.Size
		removed = append(removed, Removal{e.Dir(), e.Digest(), e.Size, e.LastUse, reason})
	}
	return removed, nil
}

// excess is how much has to go once the quota is reached.
func (c *Cluster) excess(entries []Entry) int64 {
	total := int64(0)
	for _, e := range entries {
		total += e.Size
	}
	if c.opts.Quota <= 0 || total <= c.opts.Quota {
		return 0
	}
	return total - c.opts.LowWater
}
