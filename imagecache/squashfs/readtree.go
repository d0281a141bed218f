package squashfs

import (
	"context"
	"fmt"
	"io/fs"
	"strings"
)

// maxDepth bounds how deep directories are nested; a path of 4 KiB has no
// more than half as many parts.
const maxDepth = 2048

// maxNames is how many names Walk goes through.
const maxNames = 10_000_000

// Walk visits every name of the tree, a directory before what is in it and the
// names in a directory in the order of the file, which is that of their bytes.
// path has no slash in front; the root's is "". An error of visit ends it.
func (d *Reader) Walk(ctx context.Context, visit func(path string, n *Node) error) error {
	root, err := d.node(d.sb.Root)
	if err != nil {
		return err
	}
	if root.Kind != Dir {
		return broken("the root is no directory")
	}
	w := &walk{d: d, ctx: ctx, visit: visit, seen: map[uint64]bool{}}
	return w.dir("", root, 0)
}

// walk is one run of Walk.
type walk struct {
	d     *Reader
	ctx   context.Context //nolint:containedctx // lives as long as one walk
	visit func(path string, n *Node) error
	seen  map[uint64]bool // directories, by reference
	names int
}

func (w *walk) dir(path string, n *Node, depth int) error {
	if w.seen[n.ref] || depth > maxDepth {
		return broken("directory %d is in a loop, in two places or too deep", n.Number)
	}
	w.seen[n.ref] = true
	if err := w.visit(path, n); err != nil {
		return err
	}
	return w.d.list(n, func(name string, ref uint64) error {
		if w.names++; w.names > maxNames {
			return broken("more than %d names", maxNames)
		}
		if w.ctx.Err() != nil {
			return context.Cause(w.ctx)
		}
		child, err := w.d.node(ref)
		if err != nil {
			return err
		}
		name = strings.TrimPrefix(path+"/"+name, "/")
		if child.Kind == Dir {
			return w.dir(name, child, depth+1)
		}
		return w.visit(name, child)
	})
}

// list reads the names in n.
func (d *Reader) list(n *Node, each func(name string, ref uint64) error) error {
	left := int(n.dirSize) - dirSizeBias
	if left <= 0 {
		return nil // empty; nobody looks where it says it is
	}
	c, err := d.cursor(d.sb.DirTable+uint64(n.dirBlock), int(n.offset))
	for err == nil && left > 0 {
		var head []byte
		if head, err = c.take(dirHeaderSize); err != nil {
			return err
		}
		left -= dirHeaderSize
		run, block := le.Uint32(head), uint64(le.Uint32(head[4:]))
		if run >= maxRun {
			return broken("a run of %d names in directory %d", run, n.Number)
		}
		for i := uint32(0); i <= run && err == nil; i++ {
			var size int
			size, err = c.entry(block, each)
			left -= size
		}
	}
	return err
}

// entry reads one name, below a header that gives the block of its inode, and
// returns its size.
func (c *cursor) entry(block uint64, each func(name string, ref uint64) error) (int, error) {
	rec, err := c.take(dirEntrySize)
	if err != nil {
		return 0, err
	}
	offset, size := uint64(le.Uint16(rec)), int(le.Uint16(rec[6:]))+1
	raw, err := c.take(size)
	if err != nil {
		return 0, err
	}
	name := string(raw)
	if !validName(name) {
		return 0, broken("the name %q", name)
	}
	return dirEntrySize + size, each(name, block<<refOffsetBits|offset)
}

// maxReadFile bounds what ReadFile returns, in bytes.
const maxReadFile = 1 << 20

// ReadFile returns the content of the file at path, as os.ReadFile does, if it
// has 1 MiB at most. Symbolic links are not followed.
func (d *Reader) ReadFile(path string) ([]byte, error) {
	n, err := d.node(d.sb.Root)
	for part := range strings.SplitSeq(path, "/") {
		if err == nil {
			n, err = d.lookUp(n, part)
		}
	}
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	if n.Kind != Regular || n.Size > maxReadFile {
		return nil, &fs.PathError{Op: "read", Path: path, Err: fmt.Errorf("no file, or one of more than %d bytes", maxReadFile)}
	}
	data := make([]byte, n.Size)
	return data, readFull(d.Content(n), data)
}

func (d *Reader) lookUp(dir *Node, name string) (*Node, error) {
	if dir.Kind != Dir {
		return nil, fs.ErrNotExist
	}
	found, at := false, uint64(0)
	err := d.list(dir, func(have string, ref uint64) error {
		if have == name {
			found, at = true, ref
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if !found {
		return nil, fs.ErrNotExist
	}
	return d.node(at)
}
