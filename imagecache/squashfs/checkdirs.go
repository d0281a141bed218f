package squashfs

// directories reads the listings of all directories and follows them up to the
// root.
func (c *checker) directories() error {
	names := 0
	for i := range c.inodes {
		if c.inodes[i].dir == nil {
			continue
		}
		n, err := c.listing(i)
		if err != nil {
			return err
		}
		if names += n; names > c.limit {
			return broken("more than %d names", c.limit)
		}
	}
	return c.tree()
}

// dirStream begins to read in the directory table.
func (c *checker) dirStream(start, offset uint32) (*stream, error) {
	at := c.sb.DirTable + uint64(start)
	s := &stream{c: c, base: c.sb.DirTable, next: at, end: c.tablesEnd}
	more, err := s.moreCached()
	if err != nil {
		return nil, err
	}
	if !more || int(offset) >= len(s.data) {
		return nil, broken("a directory is at %d, offset %d", start, offset)
	}
	s.pos = int(offset)
	return s, nil
}

// moreCached is more for the first block of a listing. Listings follow each
// other, so the last block is kept.
func (s *stream) moreCached() (bool, error) {
	if b := s.c.lastDir; b != nil && b.at == s.next {
		s.start, s.data, s.next = b.at-s.base, b.data, b.next
		return true, nil
	}
	at := s.next
	more, err := s.more()
	if more {
		s.c.lastDir = &cachedBlock{at, s.next, s.data}
	}
	return more, err
}

// cachedBlock is a metadata block that was read.
type cachedBlock struct {
	at, next uint64
	data     []byte
}

// listing reads the names in directory i and returns how many there are.
func (c *checker) listing(i int) (int, error) {
	d := c.inodes[i].dir
	left := int(d.size) - dirSizeBias
	index := c.inodes[i].dir.index
	if left == 0 && len(index) == 0 {
		return 0, nil // nobody looks where it says it is
	}
	s, err := c.dirStream(d.start, d.offset)
	if err != nil {
		return 0, err
	}
	count, last := 0, ""
	for left > 0 {
		if _, err := s.more(); err != nil {
			return 0, err
		}
		at, block := d.size-dirSizeBias-uint32(left), s.start
		head, err := s.take(dirHeaderSize)
		if err != nil {
			return 0, err
		}
		left -= dirHeaderSize
		indexed := len(index) > 0 && index[0].at == at
		run := uint64(le.Uint32(head)) + 1
		if run > maxRun {
			return 0, broken("a run of %d names in directory %d", run, c.inodes[i].number)
		}
		for k := range run {
			name, err := c.entry(s, i, head)
			if err != nil {
				return 0, err
			}
			if indexed && k == 0 {
				if index[0].start != block || index[0].name != name {
					return 0, broken("an index of directory %d leads to %q, not to %q", c.inodes[i].number, name, index[0].name)
				}
				index = index[1:]
			}
			if name <= last {
				return 0, broken("%q follows %q in directory %d", name, last, c.inodes[i].number)
			}
			last = name
			left -= dirEntrySize + len(name)
			count++
		}
	}
	if left < 0 {
		return 0, broken("directory %d is longer than its size", c.inodes[i].number)
	}
	if len(index) > 0 {
		return 0, broken("the index of directory %d is not in order", c.inodes[i].number)
	}
	return count, nil
}

// entry reads one name of directory i, below head.
func (c *checker) entry(s *stream, i int, head []byte) (string, error) {
	rec, err := s.take(dirEntrySize)
	if err != nil {
		return "", err
	}
	size := int(le.Uint16(rec[6:])) + 1
	if size > MaxName {
		return "", broken("a name of %d bytes in directory %d", size, c.inodes[i].number)
	}
	raw, err := s.take(size)
	if err != nil {
		return "", err
	}
	name := string(raw)
	if !validName(name) {
		return "", broken("the name %q in directory %d", name, c.inodes[i].number)
	}
	ref := uint64(le.Uint32(head[4:]))<<refOffsetBits | uint64(le.Uint16(rec))
	to, ok := c.byRef[ref]
	if !ok {
		return "", broken("%q in directory %d leads to no inode", name, c.inodes[i].number)
	}
	n := &c.inodes[to]
	number := uint32(int64(le.Uint32(head[8:])) + int64(int16(le.Uint16(rec[2:]))))
	if n.number != number || uint16(n.kind) != le.Uint16(rec[4:]) {
		return "", broken("%q is listed as inode %d of type %d, which is %d of type %d", name, number, le.Uint16(rec[4:]), n.number, n.kind)
	}
	n.found++
	return name, c.adopt(i, n)
}

// adopt notes that directory i lists n.
func (c *checker) adopt(i int, n *checkedInode) error {
	if n.dir == nil {
		return nil
	}
	if n.dir.parentInode >= 0 {
		return broken("directory %d is in two places", n.number)
	}
	if n.dir.parent != c.inodes[i].number {
		return broken("directory %d does not know that it is in %d", n.number, c.inodes[i].number)
	}
	n.dir.parentInode = i
	c.inodes[i].dir.subdirs++
	return nil
}

// tree checks that everything hangs below the root, once.
func (c *checker) tree() error {
	root, ok := c.byRef[c.sb.Root]
	if !ok || c.inodes[root].dir == nil {
		return broken("the root is no directory")
	}
	if c.inodes[root].found != 0 {
		return broken("the root is listed in a directory")
	}
	reaches := make([]bool, len(c.inodes))
	reaches[root] = true
	for i, n := range c.inodes {
		switch {
		case n.dir == nil && (n.found == 0 || n.found != n.links):
			return broken("inode %d has %d names, and says %d", n.number, n.found, n.links)
		case n.dir != nil && n.links != n.dir.subdirs+2:
			return broken("directory %d has %d links and %d directories", n.number, n.links, n.dir.subdirs)
		case n.dir != nil && !c.reachesRoot(i, reaches):
			return broken("directory %d is not below the root", n.number)
		}
	}
	return nil
}

// reachesRoot goes up from directory i until one that is known to be
// below the root, and marks the way. A loop has no such end, and its length is
// bounded by the number of inodes.
func (c *checker) reachesRoot(i int, reaches []bool) bool {
	var way []int
	for at := i; !reaches[at]; at = c.inodes[at].dir.parentInode {
		if way = append(way, at); c.inodes[at].dir.parentInode < 0 || len(way) > len(c.inodes) {
			return false
		}
	}
	for _, at := range way {
		reaches[at] = true
	}
	return true
}
