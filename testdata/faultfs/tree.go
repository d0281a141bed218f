package faultfs

import (
	"maps"
	"path"
	"slices"
	"syscall"
	"time"
)

const rootID = 1

// An inode is a file, folder or link. Ids are never used twice.
type inode struct {
	id     uint64
	attr   attr
	data   []byte
	target string            // of a symbolic link
	names  map[string]uint64 // of a folder
	nlink  uint32
	linked bool // by link(2), once
	mtime  time.Time
	failed failure // the last sync that failed
	up     uint64  // the folder and
	name   string  // name by which it was last known, for messages
}

// A failure is told once to each descriptor that was open when it happened.
type failure struct {
	n   int // which it is, of this inode
	err syscall.Errno
}

func newInode(id uint64, a attr) *inode {
	n := &inode{id: id, attr: a, nlink: 1, mtime: time.Now()}
	if n.isDir() {
		n.names = map[string]uint64{}
	}
	return n
}

func (n *inode) isDir() bool { return n.attr.mode&syscall.S_IFMT == syscall.S_IFDIR }

func (n *inode) clone() *inode {
	c := *n
	c.data, c.names = slices.Clone(n.data), maps.Clone(n.names)
	return &c
}

// A tree is a whole file system, by inode number.
type tree map[uint64]*inode

func (t tree) clone() tree {
	c := make(tree, len(t))
	for id, n := range t {
		c[id] = n.clone()
	}
	return c
}

// path returns where ino was last seen.
func (t tree) path(ino uint64) string {
	n := t[ino]
	if n == nil || ino == rootID {
		return ""
	}
	return path.Join(t.path(n.up), n.name)
}

// apply does the whole of c.
func (t tree) apply(c change) {
	t.bear(c.born)
	for _, nc := range c.names {
		t.setName(nc)
	}
	if c.data != nil {
		t[c.ino].change(*c.data)
	}
	if c.attr != nil {
		t[c.ino].attr = *c.attr
	}
}

// bear adds a new inode, which has no name yet.
func (t tree) bear(n *inode) {
	if n != nil {
		t[n.id] = n.clone()
	}
}

func (t tree) setName(c nameChange) {
	dir := t[c.dir]
	if dir == nil {
		return // its folder did not survive
	}
	dir.mtime = time.Now()
	if c.ino == 0 {
		delete(dir.names, c.name)
		return
	}
	dir.names[c.name] = c.ino
	if n := t[c.ino]; n != nil {
		n.up, n.name = c.dir, c.name
	}
}

// change writes or resizes.
func (n *inode) change(c dataChange) {
	n.mtime = time.Now()
	end := c.size
	if end < 0 {
		end = max(int64(len(n.data)), c.off+int64(len(c.bytes)))
	}
	if end > int64(len(n.data)) {
		n.data = append(n.data, make([]byte, end-int64(len(n.data)))...)
	}
	clear(n.data[end:])
	n.data = n.data[:end]
	copy(n.data[min(c.off, end):], c.bytes)
}
