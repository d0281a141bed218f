package squashfs

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/klauspost/compress/zstd"
)

// unwritten stands for the place of an inode that has none yet. Zero is the
// first inode's.
const unwritten = math.MaxUint64

// tables turns a tree into the inode and the directory table.
type tables struct {
	enc    *zstd.Encoder
	inodes *metadata
	dirs   *metadata
	refs   []uint64 // of the inodes by number, less one
	count  uint32
	rec    []byte // the record being made
}

func newTables() (*tables, error) {
	enc, err := newEncoder()
	if err != nil {
		return nil, err
	}
	// Linux keeps eight decompressed blocks of these two tables per mount, so a
	// walk through the tree would decompress each of them many times.
	return &tables{enc: enc, inodes: newMetadata(nil), dirs: newMetadata(nil)}, nil
}

func (t *tables) newTable() *metadata { return newMetadata(t.enc) }

// tree writes root and everything below it. Inodes are numbered first, because
// a directory names its parent, which is written after it.
func (t *tables) tree(root *Inode) error {
	if root.Kind != Dir {
		return errors.New("write tree: the root is not a directory")
	}
	t.number(root)
	t.refs = slices.Repeat([]uint64{unwritten}, int(t.count))
	return t.directory(root, t.count+1)
}

// number counts the inodes and their links below d.
func (t *tables) number(d *Inode) {
	t.next(d)
	d.links = 2
	for _, e := range d.Entries {
		switch {
		case e.Inode.Kind == Dir:
			d.links++
			t.number(e.Inode)
		case e.Inode.number == 0:
			t.next(e.Inode)
			e.Inode.links = 1
		default:
			e.Inode.links++
		}
	}
}

func (t *tables) next(n *Inode) {
	t.count++
	n.number = t.count
}

// directory writes what d holds, then its listing, then d itself, so that each
// refers to what has its place already.
func (t *tables) directory(d *Inode, parent uint32) error {
	for _, e := range d.Entries {
		if e.Inode.Kind != Dir {
			continue
		}
		if err := t.directory(e.Inode, d.number); err != nil {
			return err
		}
	}
	for _, e := range d.Entries {
		if e.Inode.Kind == Dir || t.refs[e.Inode.number-1] != unwritten {
			continue
		}
		if err := t.leaf(e.Inode); err != nil {
			return fmt.Errorf("write %q: %w", e.Name, err)
		}
	}
	l, err := t.list(d.Entries)
	if err != nil {
		return err
	}
	t.putDir(d, parent, l)
	return nil
}

// begin starts the record of n.
func (t *tables) begin(kind uint16, n *Inode) {
	start, offset := t.inodes.at()
	n.ref = start<<refOffsetBits | uint64(offset)
	t.refs[n.number-1] = n.ref
	t.rec = le.AppendUint16(t.rec[:0], kind)
	t.rec = le.AppendUint16(t.rec, n.Mode)
	t.rec = le.AppendUint32(t.rec, 0) // user and group: index 0 of the id table
	t.rec = le.AppendUint32(t.rec, n.MTime)
	t.rec = le.AppendUint32(t.rec, n.number)
}

func (t *tables) end() { t.inodes.put(t.rec) }

func (t *tables) u16(v uint16) { t.rec = le.AppendUint16(t.rec, v) }
func (t *tables) u32(v uint32) { t.rec = le.AppendUint32(t.rec, v) }
func (t *tables) u64(v uint64) { t.rec = le.AppendUint64(t.rec, v) }

func (t *tables) leaf(n *Inode) error {
	switch n.Kind {
	case Regular:
		t.putFile(n)
	case Symlink:
		if n.Target == "" || len(n.Target) > MaxTarget {
			return fmt.Errorf("a symbolic link to %d bytes", len(n.Target))
		}
		t.begin(typeSymlink, n)
		t.u32(n.links)
		t.u32(uint32(len(n.Target)))
		t.rec = append(t.rec, n.Target...)
		t.end()
	case Fifo:
		t.begin(typeFifo, n)
		t.u32(n.links)
		t.end()
	default:
		return fmt.Errorf("unknown kind %d", n.Kind)
	}
	return nil
}

func (t *tables) putFile(n *Inode) {
	f := n.File
	if f == nil {
		f = &File{fragment: noFragment}
	}
	if n.links == 1 && f.sparse == 0 && f.start <= math.MaxUint32 && f.size <= math.MaxUint32 {
		t.begin(typeFile, n)
		t.u32(uint32(f.start))
		t.u32(f.fragment)
		t.u32(f.offset)
		t.u32(uint32(f.size))
	} else {
		t.begin(typeExtFile, n)
		t.u64(f.start)
		t.u64(f.size)
		t.u64(f.sparse)
		t.u32(n.links)
		t.u32(f.fragment)
		t.u32(f.offset)
		t.u32(noXattr)
	}
	for _, size := range f.blocks {
		t.u32(size)
	}
	t.end()
}

func (t *tables) putDir(d *Inode, parent uint32, l listing) {
	size := l.size + dirSizeBias
	if size <= math.MaxUint16 && len(l.index) == 0 {
		t.begin(typeDir, d)
		t.u32(uint32(l.start))
		t.u32(d.links)
		t.u16(uint16(size))
		t.u16(uint16(l.offset))
		t.u32(parent)
		t.end()
		return
	}
	t.begin(typeExtDir, d)
	t.u32(d.links)
	t.u32(uint32(size))
	t.u32(uint32(l.start))
	t.u32(parent)
	t.u16(uint16(len(l.index)))
	t.u16(uint16(l.offset))
	t.u32(noXattr)
	for _, x := range l.index {
		t.u32(x.at)
		t.u32(uint32(x.start))
		t.u32(uint32(len(x.name) - 1))
		t.rec = append(t.rec, x.name...)
	}
	t.end()
}

// export lists where each inode is.
func (t *tables) export() *metadata {
	m := t.newTable()
	for _, ref := range t.refs {
		m.put(le.AppendUint64(nil, ref))
	}
	return m
}
