package store

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/berth-hpc/berth/fault"
)

// Limits are what a store may take of its disk, in bytes. Zero limits nothing.
type Limits struct {
	Quota    int64 // for the images together
	LowWater int64 // down to which images go once the quota is reached
	MinFree  int64 // of the file system
	// Settings is how the keys of these begin in the configuration:
	// "store." or "store.user_".
	Settings string
}

// A Space keeps a store within its limits. Images that were not used for
// longest make room, but never one that somebody uses or keeps.
// The nil Space has no limits and removes nothing; nor does one of a cluster's
// store (Cluster.Remove, Cluster.Tidy).
type Space struct {
	Store  *Store
	Limits Limits
	Users  Users
	// Reap, which may be nil, is called before images have to go: it ends the
	// uses of those who are not there any more.
	Reap func(ctx context.Context)
	// Evicted, which may be nil, is told what went to make room.
	Evicted func(e Entry)
}

// unlimited says that sp decides nothing: a cluster's store is no single node's
// to make room in, and knows no locks by flock(2).
func (sp *Space) unlimited() bool { return sp == nil || sp.Store.shared }

// Reserve makes room for the bytes that the holder of lock is about to write,
// and notes them, so that others who pull at the same time do not count on the
// same room. A second call replaces the first. It fails, and then has removed
// nothing, if that much cannot be had.
func (sp *Space) Reserve(ctx context.Context, lock *Lock, bytes int64) error {
	if sp.unlimited() {
		return nil
	}
	unlock, err := sp.Store.lockSpace(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if _, err := sp.makeRoom(ctx, lock.key, bytes); err != nil {
		return err
	}
	return siteError("reserve space in", sp.Store.root, lock.reserve(bytes))
}

// Free removes images until so many bytes are gone, whatever the limits say,
// for a pull whose disk is full in spite of its reservation. It returns how
// many went.
func (sp *Space) Free(ctx context.Context, lock *Lock, bytes int64) (int64, error) {
	if sp.unlimited() {
		return 0, nil
	}
	unlock, err := sp.Store.lockSpace(ctx)
	if err != nil {
		return 0, err
	}
	defer unlock()
	removed, err := sp.evict(ctx, lock.key, bytes)
	return total(removed), err
}

// Trim removes images until the store is within its limits, as far as that can
// be done, and returns them. It costs little when it is.
func (sp *Space) Trim(ctx context.Context) ([]Entry, error) {
	if sp.unlimited() {
		return nil, nil
	}
	unlock, err := sp.Store.lockSpace(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	removed, err := sp.makeRoom(ctx, "", 0)
	var full *fullError
	if errors.As(err, &full) {
		err = nil
	}
	return removed, err
}

// Short says whether less than MinFree of the disk is free. It costs one
// system call.
func (sp *Space) Short() bool {
	free, err := sp.Store.free()
	return err == nil && free < sp.Limits.MinFree
}

// makeRoom removes images until bytes more fit, and more of them than that
// once the quota is reached. key is the image they are for.
func (sp *Space) makeRoom(ctx context.Context, key string, bytes int64) (removed []Entry, err error) {
	u, err := sp.usage(key)
	if err != nil {
		return nil, err
	}
	if u.must(sp.Limits, bytes) <= 0 {
		return nil, nil
	}
	if sp.Limits.Quota > 0 && bytes > sp.Limits.Quota {
		return nil, sp.full(u, bytes)
	}
	if sp.Reap != nil {
		sp.Reap(ctx)
	}
	can, err := sp.evictable(ctx, key)
	if err != nil {
		return nil, err
	}
	if bytes > 0 && can < u.must(sp.Limits, bytes) {
		return nil, sp.full(u, bytes)
	}
	removed, err = sp.evict(ctx, key, u.goal(sp.Limits, bytes))
	if err == nil && total(removed) < u.must(sp.Limits, bytes) {
		err = sp.full(u, bytes) // somebody began to use what could have gone
	}
	return removed, err
}

// usage is how a store stands, in bytes, without the pull that asks.
type usage struct {
	images   int64 // published
	reserved int64 // by other pulls
	pending  int64 // of that, not written yet
	free     int64 // of the file system
}

func (sp *Space) usage(key string) (u usage, err error) {
	if u.free, err = sp.Store.free(); err != nil {
		return u, err
	}
	u.reserved, u.pending = sp.Store.reservations(key)
	if sp.Limits.Quota <= 0 {
		return u, nil
	}
	entries, err := sp.Store.Entries()
	u.images = total(entries)
	return u, err
}

// must is how much has to go for bytes more; goal is how much should.
func (u usage) must(l Limits, bytes int64) int64 {
	over := int64(math.MinInt64)
	if l.Quota > 0 {
		over = u.images + u.reserved + bytes - l.Quota
	}
	return max(over, l.MinFree+u.pending+bytes-u.free)
}

func (u usage) goal(l Limits, bytes int64) int64 {
	goal := u.must(l, bytes)
	if over := u.images + u.reserved + bytes - l.Quota; l.Quota > 0 && over > 0 {
		goal = max(goal, over+max(l.Quota-l.LowWater, 0))
	}
	return goal
}

// evict removes images, in the order of Entries, until bytes are gone or
// nothing is left that may go.
func (sp *Space) evict(ctx context.Context, key string, bytes int64) (removed []Entry, err error) {
	entries, err := sp.Store.Entries()
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if bytes <= 0 || ctx.Err() != nil {
			return removed, context.Cause(ctx)
		}
		if e.Keep != nil || e.Key() == key {
			continue
		}
		err := sp.Store.evict(ctx, e.Image, sp.Users)
		var used *InUseError
		if errors.As(err, &used) {
			continue
		}
		if err != nil {
			return removed, err
		}
		removed = append(removed, e)
		bytes -= e.Size
		if sp.Evicted != nil {
			sp.Evicted(e)
		}
	}
	return removed, nil
}

// evictable is how much could go.
func (sp *Space) evictable(ctx context.Context, key string) (bytes int64, err error) {
	entries, err := sp.Store.Entries()
	for _, e := range entries {
		if e.Keep != nil || e.Key() == key {
			continue
		}
		by, err := sp.Users.Of(ctx, e.Image)
		if err != nil {
			return 0, err
		}
		if len(by) == 0 {
			bytes += e.Size
		}
	}
	return bytes, err
}

func total(entries []Entry) (bytes int64) {
	for _, e := range entries {
		bytes += e.Size
	}
	return bytes
}

// A fullError says that a store has no room.
type fullError struct{ text string }

// Error implements error.
func (e *fullError) Error() string { return e.text }

// full says why bytes more do not fit, and what can be done.
func (sp *Space) full(u usage, bytes int64) error {
	l := sp.Limits
	var text, remedy string
	if l.Quota > 0 && u.images+u.reserved+bytes > l.Quota {
		text = fmt.Sprintf("the store may take %s (%squota); its images take %s, and other pulls have reserved %s",
			size(l.Quota), l.Settings, size(u.images), size(u.reserved))
		remedy = fmt.Sprintf(", or have %squota raised", l.Settings)
	} else {
		text = fmt.Sprintf("its disk has %s free, of which %s are to stay so (%smin_free), and other pulls have reserved %s",
			size(u.free), size(l.MinFree), l.Settings, size(u.pending))
		remedy = ", or make room on its disk"
	}
	return &fault.Error{
		Op: "make room in", Arg: sp.Store.root, Blame: fault.Site, Cause: fault.Disk,
		Remedy: "remove images that nobody needs (berth images, berth rm), end what keeps or uses others" + remedy,
		Err:    &fullError{fmt.Sprintf("%s are needed, and what may be removed is not enough: %s", size(bytes), text)},
	}
}

// size writes bytes the way people compare sizes.
func size(bytes int64) string {
	if bytes >= 1e9 {
		return fmt.Sprintf("%.1f GB", float64(bytes)/1e9)
	}
	return fmt.Sprintf("%.1f MB", float64(bytes)/1e6)
}
