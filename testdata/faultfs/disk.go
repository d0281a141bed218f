package faultfs

import (
	"math/rand/v2"
	"strconv"
)

// sector is what a disk writes at once, in bytes.
const sector = 512

// A Survival picks one of the states that a disk may be in: it says of every
// change that no sync covered what became of it.
type Survival struct {
	name string
	fate func(rng *rand.Rand, named bool) fate
	seed uint64
}

type fate int

const (
	lost   fate = iota
	kept        // as it was done
	torn        // of a write, some sectors
	hollow      // of a write, the length alone
)

// String returns the survival's name, which has the seed of a random one.
func (s Survival) String() string { return s.name }

func fixed(name string, names, data fate) Survival {
	return Survival{name: name, fate: func(_ *rand.Rand, named bool) fate {
		if named {
			return names
		}
		return data
	}}
}

// Nothing is the disk on which only what was synced is there.
func Nothing() Survival { return fixed("nothing unsynced", lost, lost) }

// Everything is the disk on which all is there, as after a mere kill.
func Everything() Survival { return fixed("everything", kept, kept) }

// NamesOnly is the disk that has all names, and files without their bytes, as
// after a power cut on a file system that journals only names.
func NamesOnly() Survival { return fixed("names without bytes", kept, lost) }

// Hollow is the disk that has all names, and zeros for unsynced bytes.
func Hollow() Survival { return fixed("names with zeros", kept, hollow) }

// DataOnly is the disk that has all bytes, and only the names that were synced.
func DataOnly() Survival { return fixed("bytes without names", lost, kept) }

// Random leaves each change to chance: a seed gives the same disk each time.
func Random(seed uint64) Survival {
	return Survival{name: "random " + strconv.FormatUint(seed, 10), seed: seed, fate: func(rng *rand.Rand, named bool) fate {
		if named {
			return fate(rng.IntN(2))
		}
		return fate(rng.IntN(4))
	}}
}

// Survivals returns all of the above, with n random ones from seed on.
func Survivals(seed uint64, n int) []Survival {
	all := []Survival{Nothing(), Everything(), NamesOnly(), Hollow(), DataOnly()}
	for i := range n {
		all = append(all, Random(seed+uint64(i)))
	}
	return all
}

// A disk is what was synced so far, and what was not, in the order it was done.
type disk struct {
	tree    tree
	data    map[uint64][]change // by inode
	names   map[uint64][][]nameChange
	pending []uint64 // inodes and folders with unsynced changes, in order
}

// after replays ops onto base, which was all on disk.
func after(base tree, ops []*Op) *disk {
	d := &disk{tree: base.clone(), data: map[uint64][]change{}, names: map[uint64][][]nameChange{}}
	for _, o := range ops {
		d.done(o)
	}
	return d
}

func (d *disk) done(o *Op) {
	if o.Err != 0 {
		if o.isSync() { // what it was to write is lost
			d.data[o.change.ino] = attrsOf(d.data[o.change.ino])
		}
		return
	}
	d.tree.bear(o.change.born)
	if o.Kind == Link {
		d.tree[o.change.names[0].ino].linked = true
	}
	for dir, group := range byFolder(o.change.names) {
		d.names[dir] = append(d.names[dir], group)
		d.pending = append(d.pending, dir)
	}
	if c := o.change; c.data != nil || c.attr != nil {
		d.data[c.ino] = append(d.data[c.ino], c)
		d.pending = append(d.pending, c.ino)
	}
	switch o.Kind {
	case Fsync, FsyncDir:
		d.sync(o.change.ino, true)
	case Fdatasync:
		d.sync(o.change.ino, false)
	}
}

// byFolder splits what one operation does to names: the parts in one folder
// survive together. The folders come in the order of the operation.
func byFolder(names []nameChange) func(yield func(uint64, []nameChange) bool) {
	return func(yield func(uint64, []nameChange) bool) {
		for len(names) > 0 {
			n := 1
			for n < len(names) && names[n].dir == names[0].dir {
				n++
			}
			if !yield(names[0].dir, names[:n]) {
				return
			}
			names = names[n:]
		}
	}
}

// attrsOf leaves bytes out.
func attrsOf(changes []change) []change {
	var attrs []change
	for _, c := range changes {
		if c.data == nil {
			attrs = append(attrs, c)
		}
	}
	return attrs
}

// sync puts on disk what is pending of ino; owner and mode only with attrs.
func (d *disk) sync(ino uint64, attrs bool) {
	var left []change
	for _, c := range d.data[ino] {
		if !attrs && c.data == nil {
			left = append(left, c)
			continue
		}
		d.tree.apply(change{ino: ino, data: c.data, attr: c.attr})
	}
	d.data[ino] = left
	for _, group := range d.names[ino] {
		d.tree.apply(change{names: group})
	}
	delete(d.names, ino)
}

// survive decides on what was never synced.
func (d *disk) survive(s Survival) tree {
	rng := rand.New(rand.NewPCG(s.seed, uint64(len(d.pending))))
	for _, ino := range d.pending {
		for _, group := range d.names[ino] {
			if s.fate(rng, true) == kept {
				d.tree.apply(change{names: group})
			}
		}
		delete(d.names, ino)
		for _, c := range d.data[ino] {
			d.keep(c, s.fate(rng, false), rng)
		}
		delete(d.data, ino)
	}
	return d.tree
}

func (d *disk) keep(c change, f fate, rng *rand.Rand) {
	switch {
	case f == lost:
	case f == kept || c.data == nil || c.data.size >= 0:
		d.tree.apply(change{ino: c.ino, data: c.data, attr: c.attr})
	case f == hollow:
		n := d.tree[c.ino]
		end := max(int64(len(n.data)), c.data.off+int64(len(c.data.bytes)))
		n.change(dataChange{size: end})
	case f == torn:
		sectors := (len(c.data.bytes) + sector - 1) / sector
		from := rng.IntN(sectors + 1)
		to := from + rng.IntN(sectors-from+1)
		part := c.data.bytes[min(from*sector, len(c.data.bytes)):min(to*sector, len(c.data.bytes))]
		if len(part) > 0 {
			d.tree[c.ino].change(dataChange{off: c.data.off + int64(from*sector), bytes: part, size: -1})
		}
	}
}
