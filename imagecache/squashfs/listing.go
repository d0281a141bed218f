package squashfs

import (
	"errors"
	"fmt"
	"strings"
)

// A listing is where a directory's names are in the directory table.
type listing struct {
	start  uint64 // of its first metadata block
	offset uint32 // in that block
	size   int
	index  []indexEntry
}

// An indexEntry lets a look-up skip the metadata blocks before the one in which
// a run of names begins. Without it, large directories are searched from
// their start.
type indexEntry struct {
	at    uint32 // of the run, in the listing
	start uint64 // of the metadata block in which the run begins
	name  string // the run's first
}

// list writes entries, in runs of those whose inodes are in one metadata block.
func (t *tables) list(entries []Entry) (listing, error) {
	var l listing
	l.start, l.offset = t.dirs.at()
	if err := checkNames(entries); err != nil {
		return l, err
	}
	last := l.start
	for len(entries) > 0 {
		if l.size > maxListing {
			return l, errors.New("a directory has too many names")
		}
		if start, _ := t.dirs.at(); start != last && len(l.index) < maxIndex {
			l.index = append(l.index, indexEntry{uint32(l.size), start, entries[0].Name})
			last = start
		}
		n := runLength(entries)
		l.size += t.putRun(entries[:n])
		entries = entries[n:]
	}
	return l, nil
}

// checkNames holds callers to what Linux relies on.
func checkNames(entries []Entry) error {
	for i, e := range entries {
		if !validName(e.Name) {
			return fmt.Errorf("%q is no name for a file", e.Name)
		}
		if i > 0 && entries[i-1].Name >= e.Name {
			return fmt.Errorf("%q and %q are not in order", entries[i-1].Name, e.Name)
		}
	}
	return nil
}

func validName(name string) bool {
	return name != "" && name != "." && name != ".." && len(name) <= MaxName && !strings.ContainsAny(name, "/\x00")
}

// runLength returns how many entries fit below one header: that has the
// metadata block of their inodes, and a number from which theirs differ little.
func runLength(entries []Entry) int {
	first := entries[0].Inode
	for i, e := range entries {
		delta := int64(e.Inode.number) - int64(first.number)
		if i == maxRun || e.Inode.ref>>refOffsetBits != first.ref>>refOffsetBits || delta < minInodeDelta || delta > maxInodeDelta {
			return i
		}
	}
	return len(entries)
}

// putRun writes a header and its entries and returns their size.
func (t *tables) putRun(run []Entry) int {
	first := run[0].Inode
	t.rec = le.AppendUint32(t.rec[:0], uint32(len(run)-1))
	t.u32(uint32(first.ref >> refOffsetBits))
	t.u32(first.number)
	for _, e := range run {
		t.u16(uint16(e.Inode.ref & refOffsetMask))
		t.u16(uint16(int16(int64(e.Inode.number) - int64(first.number))))
		t.u16(uint16(e.Inode.Kind))
		t.u16(uint16(len(e.Name) - 1))
		t.rec = append(t.rec, e.Name...)
	}
	t.dirs.put(t.rec)
	return len(t.rec)
}
