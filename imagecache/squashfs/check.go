package squashfs

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
)

// ErrStructure is the cause of every complaint of Check about the file itself,
// as opposed to reading it.
var ErrStructure = errors.New("squashfs structure")

func broken(format string, a ...any) error {
	return fmt.Errorf("%w: %s", ErrStructure, fmt.Sprintf(format, a...))
}

// CheckOptions bound what Check may cost.
type CheckOptions struct {
	// MaxInodes is how many inodes, names and fragments each a file may have; 0 means
	// 10 million. Each takes some 100 bytes of memory.
	MaxInodes int
	// MaxMetadata is how many bytes of tables may be read, decompressed and
	// with what has to be read twice; 0 means 4 GiB, some ten seconds.
	MaxMetadata int64
	// Contents says that the blocks of files are decompressed, too. Then all
	// that Linux reads of the file has been read before.
	Contents bool
	// MaxContents is how many bytes of files may be read then, blocks of zeros
	// left out; 0 means 1 TiB.
	MaxContents int64
}

const (
	defaultMaxInodes   = 10_000_000
	defaultMaxMetadata = 4 << 30
	defaultMaxContents = 1 << 40
)

func (o CheckOptions) orDefault() CheckOptions {
	o.MaxInodes = cmp.Or(max(o.MaxInodes, 0), defaultMaxInodes)
	o.MaxMetadata = cmp.Or(max(o.MaxMetadata, 0), defaultMaxMetadata)
	o.MaxContents = cmp.Or(max(o.MaxContents, 0), defaultMaxContents)
	return o
}

// Check reads the metadata of a squashfs file of size bytes and reports the
// first thing in it that is not as the format wants: a table, an inode, a
// block or a name out of bounds, a reference to nothing or to something of
// another type, a directory with two parents or in a loop, names out of order
// or with a slash, wrong counts. It takes what Writer and mksquashfs
// write with zstd, and refuses what is never needed here: other compressors,
// device nodes, sockets, extended attributes. Unless it is told to, it does not
// decompress the contents of files: an error in one is an I/O error for its
// reader.
//
// Nothing in the file decides how much memory is taken before that much of it
// has been read, and the options bound how much that is. Recursion does not
// depend on the file either.
func Check(r io.ReaderAt, size int64, opts CheckOptions) error {
	opts = opts.orDefault()
	c := &checker{r: r, size: uint64(size), limit: opts.MaxInodes, metadata: opts.MaxMetadata, contents: opts.Contents, left: opts.MaxContents}
	if err := c.superblock(); err != nil {
		return err
	}
	var err error
	// Linux gives a decompressor no larger window than a block of data.
	c.dec, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(uint64(max(c.sb.BlockSize, metadataSize))),
		zstd.WithDecoderLowmem(true))
	if err != nil {
		return err
	}
	defer c.dec.Close()
	for _, step := range []func() error{c.compressorOptions, c.idTable, c.exportPlace, c.fragmentTable, c.inodeTable, c.directories, c.exportTable} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// checker is one run of Check.
type checker struct {
	r     io.ReaderAt
	size  uint64
	limit int
	dec   *zstd.Decoder
	sb    superblock

	metadata int64 // bytes that may still be read
	contents bool  // they are read, too
	left     int64 // bytes of contents that may still be read
	raw      []byte
	plain    []byte

	after     uint64   // where what follows the next table to the front begins
	tablesEnd uint64   // where what follows the directory table begins
	fragments []uint32 // the length of each
	inodes    []checkedInode
	byRef     map[uint64]int // index in inodes
	lastDir   *cachedBlock

	indexNames int
}

// checkedInode is what has to be remembered of an inode.
type checkedInode struct {
	ref    uint64
	kind   uint8 // the basic one
	number uint32
	links  uint32
	found  uint32 // entries that lead here
	dir    *checkedDir
}

type checkedDir struct {
	start        uint32
	offset, size uint32
	parent       uint32
	subdirs      uint32
	parentInode  int // index of the directory that lists it; -1: none yet
	index        []indexEntry
}

func (c *checker) superblock() error {
	raw := make([]byte, superblockSize)
	if err := c.readAt(raw, 0); err != nil {
		return err
	}
	_ = binary.Read(bytes.NewReader(raw), le, &c.sb) // as long as it has to be
	sb := c.sb
	switch {
	case sb.Magic != magic || sb.Major != 4 || sb.Minor != 0:
		return broken("not squashfs 4.0")
	case sb.Compression != compressionZstd:
		return broken("compressor %d, not zstd", sb.Compression)
	case sb.BlockLog < 12 || sb.BlockLog > 20 || sb.BlockSize != 1<<sb.BlockLog:
		return broken("blocks of %d bytes, 2 to the power of %d", sb.BlockSize, sb.BlockLog)
	case sb.Inodes == 0 || uint64(sb.Inodes) > uint64(c.limit) || uint64(sb.Fragments) > uint64(c.limit):
		return broken("%d inodes, %d fragments", sb.Inodes, sb.Fragments)
	case sb.XattrTable != noTable:
		return broken("it has extended attributes")
	case sb.BytesUsed > c.size || sb.BytesUsed < superblockSize:
		return broken("%d bytes of %d are used", sb.BytesUsed, c.size)
	case sb.InodeTable < superblockSize || sb.InodeTable >= sb.DirTable || sb.DirTable > sb.FragTable ||
		sb.FragTable > sb.IDTable || sb.IDTable >= sb.BytesUsed:
		return broken("tables are not in order")
	case sb.ExportTable != noTable && (sb.ExportTable < sb.FragTable || sb.ExportTable > sb.IDTable):
		return broken("export table is not in order")
	}
	return nil
}

// readAt reads what the file must have.
func (c *checker) readAt(p []byte, at uint64) error {
	if at > c.size || uint64(len(p)) > c.size-at {
		return broken("%d bytes at %d are behind the end", len(p), at)
	}
	if _, err := c.r.ReadAt(p, int64(at)); err != nil && err != io.EOF {
		return fmt.Errorf("read squashfs: %w", err)
	}
	return nil
}

// block reads the metadata block at at, which has to end at end or before,
// and returns it with where the next one is.
func (c *checker) block(at, end uint64) (data []byte, next uint64, err error) {
	if at > end || end-at < 2 {
		return nil, 0, broken("a metadata block at %d is behind the end of its table", at)
	}
	var head [2]byte
	if err := c.readAt(head[:], at); err != nil {
		return nil, 0, err
	}
	size := uint64(le.Uint16(head[:]) &^ storedMetadata)
	if size == 0 || size > metadataSize || size > end-at-2 {
		return nil, 0, broken("a metadata block at %d has %d bytes", at, size)
	}
	data = make([]byte, size)
	if err := c.readAt(data, at+2); err != nil {
		return nil, 0, err
	}
	if le.Uint16(head[:])&storedMetadata == 0 {
		if data, err = c.unpack(data, make([]byte, 0, metadataSize), metadataSize); err != nil {
			return nil, 0, fmt.Errorf("a metadata block at %d: %w", at, err)
		}
	}
	if c.metadata -= int64(len(data)); c.metadata < 0 {
		return nil, 0, broken("its tables are too long")
	}
	return data, at + 2 + size, nil
}

// compressorOptions looks at what mksquashfs notes before the data. Linux reads
// it when it mounts the file.
func (c *checker) compressorOptions() error {
	if c.sb.Flags&flagCompressorOptions == 0 {
		return nil
	}
	_, _, err := c.block(superblockSize, c.sb.InodeTable)
	return err
}

// table reads count records of width bytes through the index at at, which
// ends at end, and returns where the first of its blocks is. want is
// called with each record.
func (c *checker) table(at, end uint64, count, width int, want func(i int, record []byte) error) (uint64, error) {
	perBlock := metadataSize / width
	blocks := (count + perBlock - 1) / perBlock
	if end < at || end-at != uint64(blocks)*8 {
		return 0, broken("the index at %d has %d bytes for %d blocks", at, int64(end-at), blocks)
	}
	first, next := at, uint64(0)
	for b := range blocks {
		var entry [8]byte
		if err := c.readAt(entry[:], at+uint64(b)*8); err != nil {
			return 0, err
		}
		start := le.Uint64(entry[:])
		if b == 0 {
			first = start
		} else if start != next {
			return 0, broken("blocks of the table at %d are not in a row", at)
		}
		data, after, err := c.block(start, at)
		if err != nil {
			return 0, err
		}
		next = after
		if len(data) != min(count-b*perBlock, perBlock)*width {
			return 0, broken("block %d of the table at %d has %d bytes", b, at, len(data))
		}
		for i := 0; i < len(data); i += width {
			if err := want(b*perBlock+i/width, data[i:i+width]); err != nil {
				return 0, err
			}
		}
	}
	if blocks > 0 && next != at {
		return 0, broken("there is a gap before the table at %d", at)
	}
	return first, nil
}

// indexEnd returns where the index at at ends that leads to count records of
// width bytes. Linux wants the next table to begin there.
func indexEnd(at uint64, count, width int) uint64 {
	perBlock := metadataSize / width
	return at + uint64((count+perBlock-1)/perBlock)*8
}

// follows says that what ends at end is not followed at once.
func (c *checker) follows(what string, end uint64) error {
	if end != c.after {
		return broken("%s ends at %d, and what follows begins at %d", what, end, c.after)
	}
	return nil
}

func (c *checker) idTable() error {
	if c.sb.IDs == 0 {
		return broken("no owners")
	}
	first, err := c.table(c.sb.IDTable, c.sb.BytesUsed, int(c.sb.IDs), 4, func(int, []byte) error { return nil })
	c.after = first
	return err
}

// exportPlace looks where the export table is. What is in it can be told when
// the inodes are known.
func (c *checker) exportPlace() error {
	if c.sb.ExportTable == noTable {
		return nil
	}
	if err := c.follows("the export table", indexEnd(c.sb.ExportTable, int(c.sb.Inodes), exportEntrySize)); err != nil {
		return err
	}
	var first [8]byte
	err := c.readAt(first[:], c.sb.ExportTable)
	c.after = le.Uint64(first[:])
	return err
}

func (c *checker) fragmentTable() error {
	c.tablesEnd = c.sb.FragTable
	if c.sb.Fragments == 0 {
		return nil
	}
	count := int(c.sb.Fragments)
	end := indexEnd(c.sb.FragTable, count, fragmentSize)
	if err := c.follows("the fragment table", end); err != nil {
		return err
	}
	first, err := c.table(c.sb.FragTable, end, count, fragmentSize, func(_ int, rec []byte) error {
		length, err := c.fragment(le.Uint64(rec), le.Uint32(rec[8:]))
		c.fragments = append(c.fragments, length)
		return err
	})
	if err == nil && first < c.sb.DirTable {
		err = broken("the fragment table begins before the directory table")
	}
	c.tablesEnd = first
	return err
}

func (c *checker) exportTable() error {
	if c.sb.ExportTable == noTable {
		return nil
	}
	numbers := make(map[uint32]uint64, len(c.inodes))
	for _, n := range c.inodes {
		numbers[n.number] = n.ref
	}
	end := indexEnd(c.sb.ExportTable, len(c.inodes), exportEntrySize)
	_, err := c.table(c.sb.ExportTable, end, len(c.inodes), exportEntrySize, func(i int, rec []byte) error {
		if ref := le.Uint64(rec); numbers[uint32(i+1)] != ref {
			return broken("inode %d is not where the export table says", i+1)
		}
		return nil
	})
	return err
}
