package squashfs

// Kinds of inodes that files of other tools have and a Writer does not.
const (
	BlockDevice Kind = 4
	CharDevice  Kind = 5
	Socket      Kind = 7
)

// A Node is a file, directory or other thing that a Reader found.
type Node struct {
	Kind   Kind
	Mode   uint16 // permission bits, set-id bits and the sticky bit
	MTime  uint32 // seconds since 1970
	Number uint32 // of the inode: hard links have the same
	Links  uint32 // names that the inode says it has
	Size   int64  // of a Regular, in bytes
	Target string // of a Symlink

	ref      uint64
	dirBlock uint32 // of a Dir: where its listing is
	offset   uint32 // of a Dir: in its first block; of a Regular: in the fragment
	dirSize  uint32
	start    uint64 // of a Regular: its first block of data
	fragment uint32
	sizes    cursor // of a Regular: at the sizes of its blocks
}

// node reads the inode at ref.
func (d *Reader) node(ref uint64) (*Node, error) {
	at := ref >> refOffsetBits
	if at > d.sb.DirTable-d.sb.InodeTable {
		return nil, broken("an inode at %d", at)
	}
	c, err := d.cursor(d.sb.InodeTable+at, int(ref&refOffsetMask))
	if err != nil {
		return nil, err
	}
	head, err := c.take(inodeHeaderSize)
	if err != nil {
		return nil, err
	}
	kind := le.Uint16(head)
	n := &Node{Mode: le.Uint16(head[2:]) & 0o7777, MTime: le.Uint32(head[8:]), Number: le.Uint32(head[12:]), ref: ref}
	extended := kind > lastBasicType
	n.Kind = Kind(kind)
	if extended {
		n.Kind -= extendedMinus
	}
	switch n.Kind {
	case Dir:
		return n, n.readDir(c, extended)
	case Regular:
		return n, n.readRegular(c, extended)
	case Symlink:
		return n, n.readSymlink(c)
	case Fifo, Socket, BlockDevice, CharDevice:
		rec, err := c.take(4)
		if err == nil {
			n.Links = le.Uint32(rec)
		}
		return n, err
	}
	return nil, broken("inode %d has the type %d", n.Number, kind)
}

func (n *Node) readDir(c *cursor, extended bool) error {
	if extended {
		rec, err := c.take(24)
		if err == nil {
			n.Links, n.dirSize, n.dirBlock = le.Uint32(rec), le.Uint32(rec[4:]), le.Uint32(rec[8:])
			n.offset = uint32(le.Uint16(rec[18:]))
		}
		return err
	}
	rec, err := c.take(16)
	if err == nil {
		n.dirBlock, n.Links, n.dirSize = le.Uint32(rec), le.Uint32(rec[4:]), uint32(le.Uint16(rec[8:]))
		n.offset = uint32(le.Uint16(rec[10:]))
	}
	return err
}

func (n *Node) readRegular(c *cursor, extended bool) error {
	n.Links = 1
	size := uint64(0)
	if extended {
		rec, err := c.take(40)
		if err != nil {
			return err
		}
		n.start, size = le.Uint64(rec), le.Uint64(rec[8:])
		n.Links, n.fragment, n.offset = le.Uint32(rec[24:]), le.Uint32(rec[28:]), le.Uint32(rec[32:])
	} else {
		rec, err := c.take(16)
		if err != nil {
			return err
		}
		n.start, n.fragment, n.offset = uint64(le.Uint32(rec)), le.Uint32(rec[4:]), le.Uint32(rec[8:])
		size = uint64(le.Uint32(rec[12:]))
	}
	if size > 1<<62 {
		return broken("file %d has %d bytes", n.Number, size)
	}
	n.Size, n.sizes = int64(size), *c
	return nil
}

func (n *Node) readSymlink(c *cursor) error {
	rec, err := c.take(8)
	if err != nil {
		return err
	}
	n.Links = le.Uint32(rec)
	size := le.Uint32(rec[4:])
	if size == 0 || size > MaxTarget {
		return broken("symbolic link %d has a target of %d bytes", n.Number, size)
	}
	target, err := c.take(int(size))
	n.Target = string(target)
	return err
}
