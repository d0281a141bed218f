package squashfs

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
)

// A Reader reads the tree and the contents of a squashfs 4.0 file, whoever
// wrote it and with whichever compressor. The file may be made to do harm:
// what is wrong with it comes back as ErrStructure, memory stays bounded, and
// names are single and harmless path elements. Owners, extended attributes
// and device numbers are left out. It may be used by one goroutine.
type Reader struct {
	r      io.ReaderAt
	size   uint64
	sb     superblock
	unpack decompressor
	blocks map[uint64]metadataBlock // by place; some of the last ones read

	fragment     uint32 // number of the last one read
	fragmentData []byte
	zeros        []byte // a hole
}

// metadataBlock is one that was read.
type metadataBlock struct {
	data []byte
	next uint64
}

// keptBlocks is how many metadata blocks of 8 KiB a Reader keeps.
const keptBlocks = 256

// NewReader reads what the file, of size bytes, says of itself.
func NewReader(r io.ReaderAt, size int64) (*Reader, error) {
	d := &Reader{r: r, size: uint64(max(size, 0)), blocks: map[uint64]metadataBlock{}}
	raw := make([]byte, superblockSize)
	if err := d.readAt(raw, 0); err != nil {
		return nil, err
	}
	_ = binary.Read(bytes.NewReader(raw), le, &d.sb) // as long as it has to be
	sb := d.sb
	switch {
	case sb.Magic != magic || sb.Major != 4 || sb.Minor != 0:
		return nil, broken("not squashfs 4.0")
	case sb.BlockLog < 12 || sb.BlockLog > 20 || sb.BlockSize != 1<<sb.BlockLog:
		return nil, broken("blocks of %d bytes, 2 to the power of %d", sb.BlockSize, sb.BlockLog)
	case sb.BytesUsed > d.size:
		return nil, broken("it ends after %d of %d bytes", d.size, sb.BytesUsed)
	case sb.InodeTable < superblockSize || sb.InodeTable >= sb.DirTable || sb.DirTable >= d.size:
		return nil, broken("tables are not in order")
	}
	var err error
	d.unpack, err = newDecompressor(sb.Compression)
	return d, err
}

// readAt reads what the file must have.
func (d *Reader) readAt(p []byte, at uint64) error {
	if at > d.size || uint64(len(p)) > d.size-at {
		return broken("%d bytes at %d are behind the end", len(p), at)
	}
	if _, err := d.r.ReadAt(p, int64(at)); err != nil && err != io.EOF {
		return fmt.Errorf("read squashfs: %w", err)
	}
	return nil
}

// block returns the metadata block at at.
func (d *Reader) block(at uint64) (metadataBlock, error) {
	if b, ok := d.blocks[at]; ok {
		return b, nil
	}
	var head [2]byte
	if err := d.readAt(head[:], at); err != nil {
		return metadataBlock{}, err
	}
	size := uint64(le.Uint16(head[:]) &^ storedMetadata)
	if size == 0 || size > metadataSize {
		return metadataBlock{}, broken("a metadata block at %d has %d bytes", at, size)
	}
	b := metadataBlock{data: make([]byte, size), next: at + 2 + size}
	err := d.readAt(b.data, at+2)
	if err == nil && le.Uint16(head[:])&storedMetadata == 0 {
		b.data, err = d.expand(b.data, metadataSize)
	}
	if err != nil {
		return metadataBlock{}, err
	}
	if len(d.blocks) >= keptBlocks {
		clear(d.blocks)
	}
	d.blocks[at] = b
	return b, nil
}

// expand decompresses to at most limit bytes, and to one at least.
func (d *Reader) expand(packed []byte, limit int) ([]byte, error) {
	data, err := d.unpack(packed, limit)
	if err == nil && len(data) == 0 {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, broken("a block cannot be decompressed: %v", err)
	}
	return data, nil
}

// A cursor reads a table of metadata blocks from some place on.
type cursor struct {
	d    *Reader
	next uint64
	data []byte
}

// cursor begins offset bytes into the metadata block at at.
func (d *Reader) cursor(at uint64, offset int) (*cursor, error) {
	b, err := d.block(at)
	if err != nil {
		return nil, err
	}
	if offset > len(b.data) {
		return nil, broken("offset %d in a block of %d bytes", offset, len(b.data))
	}
	return &cursor{d: d, next: b.next, data: b.data[offset:]}, nil
}

// take returns the next n bytes, which are few. They are the caller's to read.
func (c *cursor) take(n int) ([]byte, error) {
	if n <= len(c.data) {
		out := c.data[:n]
		c.data = c.data[n:]
		return out, nil
	}
	out := make([]byte, 0, n)
	for len(out) < n {
		if len(c.data) == 0 {
			b, err := c.d.block(c.next)
			if err != nil {
				return nil, err
			}
			c.data, c.next = b.data, b.next
		}
		got := min(n-len(out), len(c.data))
		out = append(out, c.data[:got]...)
		c.data = c.data[got:]
	}
	return out, nil
}
