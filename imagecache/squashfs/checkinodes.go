package squashfs

// stream reads a table of metadata blocks from its start to its end.
type stream struct {
	c         *checker
	base      uint64 // where the table is
	next, end uint64
	start     uint64 // of the block in data, from base
	data      []byte
	pos       int
}

// at returns the reference to the next byte.
func (s *stream) at() uint64 { return s.start<<refOffsetBits | uint64(s.pos) }

// more makes sure that there is a byte to read; false means the table's end.
func (s *stream) more() (bool, error) {
	if s.pos < len(s.data) {
		return true, nil
	}
	if len(s.data) > 0 && len(s.data) < metadataSize && s.next < s.end {
		return false, broken("a metadata block amid a table is short")
	}
	if s.next >= s.end {
		return false, nil
	}
	at := s.next
	var err error
	s.data, s.next, err = s.c.block(at, s.end)
	s.start, s.pos = at-s.base, 0
	return err == nil, err
}

// take returns the next n bytes. They count as read even if they are few.
func (s *stream) take(n int) ([]byte, error) {
	out := make([]byte, 0, min(n, metadataSize))
	for len(out) < n {
		more, err := s.more()
		if err != nil {
			return nil, err
		}
		if !more {
			return nil, broken("a table ends within a record")
		}
		got := min(n-len(out), len(s.data)-s.pos)
		out = append(out, s.data[s.pos:s.pos+got]...)
		s.pos += got
	}
	return out, nil
}

// inodeTable reads all inodes, one after the other.
func (c *checker) inodeTable() error {
	s := &stream{c: c, base: c.sb.InodeTable, next: c.sb.InodeTable, end: c.sb.DirTable}
	c.byRef = map[uint64]int{}
	seen := map[uint32]bool{}
	for {
		more, err := s.more()
		if err != nil {
			return err
		}
		if !more {
			break
		}
		if len(c.inodes) == int(c.sb.Inodes) {
			return broken("more inodes than the %d that were named", c.sb.Inodes)
		}
		n, err := c.inode(s)
		if err != nil {
			return err
		}
		if n.number == 0 || n.number > c.sb.Inodes || seen[n.number] {
			return broken("the inode number %d is too large or there twice", n.number)
		}
		seen[n.number] = true
		c.byRef[n.ref] = len(c.inodes)
		c.inodes = append(c.inodes, n)
	}
	if len(c.inodes) != int(c.sb.Inodes) {
		return broken("%d inodes, not %d as named", len(c.inodes), c.sb.Inodes)
	}
	return nil
}

func (c *checker) inode(s *stream) (checkedInode, error) {
	n := checkedInode{ref: s.at()}
	head, err := s.take(inodeHeaderSize)
	if err != nil {
		return n, err
	}
	kind := le.Uint16(head)
	n.number = le.Uint32(head[12:])
	if mode := le.Uint16(head[2:]); mode&^0o7777 != 0 {
		return n, broken("inode %d has the mode %#o", n.number, mode)
	}
	if le.Uint16(head[4:]) >= c.sb.IDs || le.Uint16(head[6:]) >= c.sb.IDs {
		return n, broken("inode %d has an owner that is not in the table", n.number)
	}
	n.kind = uint8(kind)
	if kind > lastBasicType {
		n.kind -= extendedMinus
	}
	switch kind {
	case typeDir, typeExtDir:
		return n, c.dirInode(s, &n, kind == typeExtDir)
	case typeFile, typeExtFile:
		return n, c.fileInode(s, &n, kind == typeExtFile)
	case typeSymlink, typeExtSymlink:
		return n, c.linkInode(s, &n, kind == typeExtSymlink)
	case typeFifo, typeExtFifo:
		rec, err := s.take(4 + extra(kind == typeExtFifo))
		if err == nil {
			n.links = le.Uint32(rec)
		}
		return n, err
	}
	return n, broken("inode %d has the type %d", n.number, kind)
}

// extra is the size of the reference to attributes in extended inodes.
func extra(extended bool) int {
	if extended {
		return 4
	}
	return 0
}

func (c *checker) dirInode(s *stream, n *checkedInode, extended bool) error {
	d := &checkedDir{parentInode: -1}
	n.dir = d
	if !extended {
		rec, err := s.take(16)
		if err != nil {
			return err
		}
		d.start, n.links, d.size = le.Uint32(rec), le.Uint32(rec[4:]), uint32(le.Uint16(rec[8:]))
		d.offset, d.parent = uint32(le.Uint16(rec[10:])), le.Uint32(rec[12:])
		return c.dirSize(n)
	}
	rec, err := s.take(24)
	if err != nil {
		return err
	}
	n.links, d.size, d.start, d.parent = le.Uint32(rec), le.Uint32(rec[4:]), le.Uint32(rec[8:]), le.Uint32(rec[12:])
	d.offset = uint32(le.Uint16(rec[18:]))
	if err := c.dirSize(n); err != nil {
		return err
	}
	return c.dirIndex(s, n, int(le.Uint16(rec[16:])))
}

func (c *checker) dirSize(n *checkedInode) error {
	if d := n.dir; d.size < dirSizeBias || d.size > maxListing+metadataSize || d.offset >= metadataSize {
		return broken("directory %d has %d bytes at offset %d", n.number, d.size, d.offset)
	}
	return nil
}

func (c *checker) dirIndex(s *stream, n *checkedInode, count int) error {
	if c.indexNames += count; c.indexNames > c.limit {
		return broken("more than %d names in indexes", c.limit)
	}
	for range count {
		rec, err := s.take(12)
		if err != nil {
			return err
		}
		size := le.Uint32(rec[8:])
		if size >= MaxName+1 {
			return broken("the index of directory %d has a name of %d bytes", n.number, size)
		}
		name, err := s.take(int(size) + 1)
		if err != nil {
			return err
		}
		n.dir.index = append(n.dir.index, indexEntry{le.Uint32(rec), uint64(le.Uint32(rec[4:])), string(name)})
	}
	return nil
}

func (c *checker) linkInode(s *stream, n *checkedInode, extended bool) error {
	rec, err := s.take(8)
	if err != nil {
		return err
	}
	n.links = le.Uint32(rec)
	size := le.Uint32(rec[4:])
	if size == 0 || size > MaxTarget {
		return broken("symbolic link %d has a target of %d bytes", n.number, size)
	}
	target, err := s.take(int(size) + extra(extended))
	if err != nil {
		return err
	}
	for _, b := range target[:size] {
		if b == 0 {
			return broken("symbolic link %d has a zero byte in its target", n.number)
		}
	}
	return nil
}

// checkedFile is the record of a file before its blocks.
type checkedFile struct {
	start, size      uint64
	fragment, offset uint32
}

func (c *checker) fileInode(s *stream, n *checkedInode, extended bool) error {
	var f checkedFile
	if extended {
		rec, err := s.take(40)
		if err != nil {
			return err
		}
		f = checkedFile{le.Uint64(rec), le.Uint64(rec[8:]), le.Uint32(rec[28:]), le.Uint32(rec[32:])}
		n.links = le.Uint32(rec[24:])
		if le.Uint64(rec[16:]) > f.size || le.Uint32(rec[36:]) != noXattr {
			return broken("file %d has more holes than bytes, or attributes", n.number)
		}
	} else {
		rec, err := s.take(16)
		if err != nil {
			return err
		}
		f = checkedFile{uint64(le.Uint32(rec)), uint64(le.Uint32(rec[12:])), le.Uint32(rec[4:]), le.Uint32(rec[8:])}
		n.links = 1
	}
	return c.fileBlocks(s, n.number, f)
}

func (c *checker) fileBlocks(s *stream, number uint32, f checkedFile) error {
	blockSize := uint64(c.sb.BlockSize)
	if f.size > 1<<62 {
		return broken("file %d has %d bytes", number, f.size)
	}
	blocks := (f.size + blockSize - 1) / blockSize
	if f.fragment != noFragment {
		blocks = f.size / blockSize
		if err := c.inFragment(number, f); err != nil {
			return err
		}
	}
	at := f.start
	for i := range blocks {
		rec, err := s.take(4)
		if err != nil {
			return err
		}
		size := le.Uint32(rec)
		if size == 0 {
			continue
		}
		if err := c.fileBlock(number, at, size, uint32(min(f.size-i*blockSize, blockSize))); err != nil {
			return err
		}
		at += uint64(size &^ storedBlock)
	}
	return nil
}

// inFragment checks the end of a file that is in a fragment.
func (c *checker) inFragment(number uint32, f checkedFile) error {
	tail := f.size % uint64(c.sb.BlockSize)
	if tail == 0 || uint64(f.fragment) >= uint64(len(c.fragments)) || uint64(f.offset)+tail > uint64(c.fragments[f.fragment]) {
		return broken("file %d is in fragment %d of %d from %d", number, f.fragment, len(c.fragments), f.offset)
	}
	return nil
}
