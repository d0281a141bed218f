// Package merge applies the layers of an image to a tree in memory, entry by
// entry, and gives what unpacking them one over the other would leave on disk.
//
// The rules are those of the OCI image specification, and where it is
// silent those of umoci's unpacker, which is the oracle in the tests of
// package imagecache:
//
//   - an entry goes through the symbolic links that the tree has at this
//     moment, and they do not lead out of it: "/" and ".." stop at the root;
//   - it takes the place of what is there, but for a folder over a folder;
//   - folders on the way that have no entry are made, and take the place of
//     what is no folder;
//   - a whiteout hides what lower layers have, not what its own layer has,
//     wherever it is among the layer's entries; so does the mark of an opaque
//     folder;
//   - a hard link is to what has its target's name at this moment, of
//     whatever layer; replacing one of the names leaves the other.
//
// The contents of files are not this package's business: Apply returns the
// inode, and the caller sets its File.
package merge

import (
	"archive/tar"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/berth-hpc/berth/imagecache/squashfs"
)

const (
	whiteoutPrefix = ".wh."
	opaqueMark     = ".wh..wh..opq"
	// maxLinks is how many symbolic links one path may go through. umoci's.
	maxLinks = 255
	// maxPath is the longest path, in bytes, that Linux opens.
	maxPath = 4095
	// impliedMode is the mode of folders without an entry; their time is 0.
	impliedMode = 0o755
)

// ErrTooMany is the cause when an image has more entries than the limit.
var ErrTooMany = errors.New("it has too many files")

// A Tree is what the layers so far have given.
type Tree struct {
	root  *node
	layer int32
	left  int // how many more entries are allowed
}

// A node is an inode while the tree can change.
type node struct {
	squashfs.Inode
	children map[string]entry // of a folder; nil while it is empty
	// upper is the last layer that had an entry for this folder or below it,
	// cleared the last from which on nothing of lower ones is below it.
	upper, cleared int32
}

// An entry is a name in a folder. What is no folder can have many names, so the
// layer that made it is noted here.
type entry struct {
	*node
	upper int32
}

func (n *node) isDir() bool { return n != nil && n.Kind == squashfs.Dir }

// New returns a tree that is an empty folder. It takes at most limit entries
// and folders on the way to them; each costs some 600 bytes of memory,
// garbage included, and its name.
func New(limit int) *Tree {
	return &Tree{root: &node{Inode: squashfs.Inode{Kind: squashfs.Dir, Mode: impliedMode}}, left: limit}
}

// NextLayer begins a layer. It is called before the first one, too.
func (t *Tree) NextLayer() { t.layer++ }

// Apply takes the next entry of the layer. For a regular file it returns the
// inode, whose content the caller adds; for all else nil. Owners, devices and
// attributes are ignored: policies have been applied already.
func (t *Tree) Apply(h *tar.Header) (*squashfs.Inode, error) {
	if err := t.spend(); err != nil {
		return nil, err
	}
	name := path.Clean("/" + h.Name)[1:]
	if name == "" {
		return nil, t.applyRoot(h)
	}
	dir, base := path.Split(name)
	p, err := t.resolve(dir)
	if err != nil {
		return nil, err
	}
	if hidden, ok := strings.CutPrefix(base, whiteoutPrefix); ok {
		return nil, t.whiteout(p, base, hidden)
	}
	if err := checkName(base); err != nil {
		return nil, err
	}
	if err := t.makeDirs(&p); err != nil {
		return nil, err
	}
	return t.place(p, base, h)
}

// spend counts an entry or a folder.
func (t *Tree) spend() error {
	if t.left <= 0 {
		return ErrTooMany
	}
	t.left--
	return nil
}

func (t *Tree) applyRoot(h *tar.Header) error {
	if h.Typeflag != tar.TypeDir {
		return errors.New("it would put something else in the place of the root directory")
	}
	t.root.describe(h)
	return nil
}

// describe sets what the header says of a folder or a file.
func (n *node) describe(h *tar.Header) {
	n.Mode = uint16(h.Mode & 0o7777)
	n.MTime = seconds(h.ModTime)
}

func seconds(t time.Time) uint32 { return uint32(min(max(t.Unix(), 0), 1<<32-1)) }

// place puts the entry into the folder p, which exists.
func (t *Tree) place(p position, base string, h *tar.Header) (*squashfs.Inode, error) {
	dir := p.last()
	old := dir.children[base]
	if old.isDir() && h.Typeflag == tar.TypeDir {
		old.describe(h)
		old.node.upper = t.layer
		t.touch(p)
		return nil, nil
	}
	delete(dir.children, base)
	n, err := t.make(h)
	if err != nil {
		return nil, err
	}
	t.add(dir, base, n)
	t.touch(p)
	if h.Typeflag == tar.TypeReg {
		return &n.Inode, nil
	}
	return nil, nil
}

// make returns the node that h describes.
func (t *Tree) make(h *tar.Header) (*node, error) {
	n := &node{}
	n.describe(h)
	switch h.Typeflag {
	case tar.TypeLink:
		return t.linked(h.Linkname)
	case tar.TypeReg:
		n.Kind = squashfs.Regular
	case tar.TypeDir:
		n.Kind = squashfs.Dir
	case tar.TypeFifo:
		n.Kind = squashfs.Fifo
	case tar.TypeSymlink:
		if h.Linkname == "" || len(h.Linkname) > squashfs.MaxTarget {
			return nil, fmt.Errorf("it is a symbolic link to a path of %d bytes", len(h.Linkname))
		}
		n.Kind, n.Mode, n.Target = squashfs.Symlink, 0o777, strings.Clone(h.Linkname)
	default:
		return nil, fmt.Errorf("it has the unknown type %q", h.Typeflag)
	}
	return n, nil
}

// linked returns what has the name target. Links in the folders of it are
// followed, one in its last part is not: it can be linked to like a file.
func (t *Tree) linked(target string) (*node, error) {
	dir, base := path.Split(path.Clean("/" + target)[1:])
	p, err := t.resolve(dir)
	if err != nil {
		return nil, err
	}
	var found *node
	if d := p.last(); d.isDir() {
		found = d.children[base].node
	}
	switch {
	case base == "" || found.isDir():
		return nil, fmt.Errorf("it is a hard link to the folder %q", target)
	case found == nil:
		return nil, fmt.Errorf("it is a hard link to %q, which does not exist", target)
	}
	return found, nil
}

func (t *Tree) add(dir *node, base string, n *node) {
	if dir.children == nil {
		dir.children = map[string]entry{}
	}
	if n.isDir() {
		n.upper = t.layer
	}
	// A part of the name would keep the whole of it in memory.
	dir.children[strings.Clone(base)] = entry{n, t.layer}
}

// touch notes that this layer has something in p.
func (t *Tree) touch(p position) {
	for _, n := range p.nodes[1:] {
		n.upper = t.layer
	}
}

// whiteout hides what lower layers have under the name hidden in p or, without
// a name, everything that they have there. base is the entry's own name.
func (t *Tree) whiteout(p position, base, hidden string) error {
	if hidden == "." || hidden == ".." {
		return errors.New("it would hide the folder that it is in")
	}
	dir := p.last()
	if !dir.isDir() {
		return nil
	}
	if base == opaqueMark || hidden == "" {
		t.clear(dir)
		return nil
	}
	if len(hidden) > squashfs.MaxName {
		return fmt.Errorf("its name has %d bytes", len(hidden))
	}
	t.hide(dir, hidden, dir.children[hidden])
	return nil
}

// hide removes an entry, or what lower layers have below it.
func (t *Tree) hide(dir *node, base string, e entry) {
	switch {
	case e.node == nil:
	case e.isDir() && e.node.upper == t.layer:
		t.clear(e.node)
	case e.isDir() || e.upper != t.layer:
		delete(dir.children, base)
	}
}

// clear removes from dir what lower layers have. Once that is done nothing of
// them can come back, so the next marks of this layer cost nothing.
func (t *Tree) clear(dir *node) {
	if dir.cleared == t.layer {
		return
	}
	dir.cleared = t.layer
	for base, e := range dir.children {
		t.hide(dir, base, e)
	}
}

// Finish returns the root of the tree, without the inodes that drop names. The
// Tree is not to be used any more.
func (t *Tree) Finish(drop func(*squashfs.Inode) bool) *squashfs.Inode {
	t.root.settle(drop)
	return &t.root.Inode
}

// settle turns the children into sorted entries.
func (n *node) settle(drop func(*squashfs.Inode) bool) {
	n.Entries = make([]squashfs.Entry, 0, len(n.children))
	for base, e := range n.children {
		if e.isDir() {
			e.settle(drop)
		} else if drop(&e.Inode) {
			continue
		}
		n.Entries = append(n.Entries, squashfs.Entry{Name: base, Inode: &e.node.Inode})
	}
	n.children = nil
	slices.SortFunc(n.Entries, func(a, b squashfs.Entry) int { return strings.Compare(a.Name, b.Name) })
}
