package store

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// An Entry is an image with what decides how long it stays.
type Entry struct {
	Image
	// Size is what the image takes, in bytes, with its unpacked tree.
	Size    int64
	LastUse time.Time
	Keep    *Keep // nil when nobody keeps it
	// Outdated says that an older policy made it, so that this Berth and
	// later ones have no use for it.
	Outdated bool
}

// Entries returns the images of every policy that is not newer than ours, in
// the order in which they make room: outdated ones first, then those that were
// not used for longest.
func (s *Store) Entries() ([]Entry, error) {
	names, err := os.ReadDir(s.imagesDir())
	if err != nil {
		return nil, siteError("list images", s.root, err)
	}
	kept := s.keeps(time.Now())
	var entries []Entry
	for _, n := range names {
		im, outdated, ok := s.imageNamed(n.Name())
		if !ok {
			continue
		}
		e := Entry{Image: im, Keep: kept[im.Key()], Outdated: outdated}
		e.Size, e.LastUse = im.measure()
		entries = append(entries, e)
	}
	slices.SortFunc(entries, func(a, b Entry) int {
		if a.Outdated != b.Outdated {
			if a.Outdated {
				return -1
			}
			return 1
		}
		return a.LastUse.Compare(b.LastUse)
	})
	return entries, nil
}

// imageNamed reads the name of an image's folder, of any policy but newer ones.
func (s *Store) imageNamed(name string) (im Image, outdated, ok bool) {
	hex, policy, _ := strings.Cut(name, ".")
	d, err := ParseDigest(digestPrefix + hex)
	theirs, ours := policyNumber(policy), policyNumber(PolicyVersion)
	if err != nil || theirs < 0 || theirs > ours {
		return Image{}, false, false
	}
	return Image{dir: filepath.Join(s.imagesDir(), name), digest: d}, theirs < ours, true
}

// policyNumber is 3 for "p3", and -1 for what is no policy.
func policyNumber(policy string) int {
	digits, ok := strings.CutPrefix(policy, "p")
	n, err := strconv.Atoi(digits)
	if !ok || err != nil {
		return -1
	}
	return n
}

// measure returns the image's size and last use; nothing for what is missing,
// because another process removes it. A tree counts as what its image says
// that it unpacks to: walking it would take longer than to use it.
func (im Image) measure() (size int64, used time.Time) {
	if info, err := os.Lstat(im.Rootfs()); err == nil {
		size, used = info.Size(), info.ModTime()
	}
	if _, err := os.Lstat(im.Tree()); errors.Is(err, fs.ErrNotExist) {
		return size, used
	}
	if r, err := im.Record(); err == nil {
		size += r.Uncompressed
	}
	return size, used
}
