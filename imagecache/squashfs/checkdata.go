package squashfs

import (
	"github.com/klauspost/compress/zstd"
)

// unpack decompresses one zstd frame, which has to be all of packed, into
// plain, and at most limit bytes.
func (c *checker) unpack(packed, plain []byte, limit int) ([]byte, error) {
	if err := oneFrame(packed, c.sb.BlockSize); err != nil {
		return nil, err
	}
	plain, err := c.dec.DecodeAll(packed, plain)
	switch {
	case err != nil:
		return nil, broken("%v", err)
	case len(plain) == 0 || len(plain) > limit:
		return nil, broken("it has %d bytes", len(plain))
	}
	return plain, nil
}

// oneFrame refuses what Linux and this package's decompressor understand
// differently: Linux stops after the first frame and does not skip any, knows
// no dictionaries, and has no room for a window that is larger than a block.
func oneFrame(packed []byte, blockSize uint32) error {
	var h zstd.Header
	if err := h.Decode(packed); err != nil {
		return broken("zstd: %v", err)
	}
	window := h.WindowSize
	if h.SingleSegment {
		window = h.FrameContentSize
	}
	if h.Skippable || h.DictionaryID != 0 || window > uint64(max(blockSize, metadataSize)) {
		return broken("zstd: a frame that Linux does not read")
	}
	at := h.HeaderSize
	for last := false; !last; {
		if len(packed)-at < 3 {
			return broken("zstd: a frame without an end")
		}
		head := int(packed[at]) | int(packed[at+1])<<8 | int(packed[at+2])<<16
		last = head&1 != 0
		size := head >> 3
		if head>>1&3 == 1 {
			size = 1 // that is repeated
		}
		if at += 3 + size; at > len(packed) {
			return broken("zstd: a frame without an end")
		}
	}
	if h.HasCheckSum {
		at += 4
	}
	if at != len(packed) {
		return broken("zstd: %d bytes behind a frame", len(packed)-at)
	}
	return nil
}

// dataBlock checks the place of a block of data.
func (c *checker) dataBlock(what string, start uint64, size uint32) error {
	length := uint64(size &^ storedBlock)
	if length > uint64(c.sb.BlockSize) || length == 0 {
		return broken("%s has %d bytes", what, length)
	}
	if start < superblockSize || start > c.sb.InodeTable || length > c.sb.InodeTable-start {
		return broken("%s is at %d", what, start)
	}
	return nil
}

// data returns how many bytes a block of data has. Of one that is compressed
// that is known only if contents are read; otherwise it is said to have as many
// as it can.
func (c *checker) data(what string, start uint64, size uint32) (uint32, error) {
	if err := c.dataBlock(what, start, size); err != nil {
		return 0, err
	}
	if size&storedBlock != 0 {
		return size &^ storedBlock, nil
	}
	if !c.contents {
		return c.sb.BlockSize, nil
	}
	if c.raw == nil {
		c.raw, c.plain = make([]byte, c.sb.BlockSize), make([]byte, 0, c.sb.BlockSize)
	}
	packed := c.raw[:size]
	if err := c.readAt(packed, start); err != nil {
		return 0, err
	}
	plain, err := c.unpack(packed, c.plain[:0], int(c.sb.BlockSize))
	if err != nil {
		return 0, err
	}
	if c.left -= int64(len(plain)); c.left < 0 {
		return 0, broken("its files are too long")
	}
	return uint32(len(plain)), nil
}

func (c *checker) fragment(start uint64, size uint32) (uint32, error) {
	return c.data("a fragment", start, size)
}

// fileBlock checks a block of a file that has to have length bytes.
func (c *checker) fileBlock(number uint32, start uint64, size, length uint32) error {
	got, err := c.data("a block of a file", start, size)
	if err != nil {
		return err
	}
	if got != length && (c.contents || size&storedBlock != 0) {
		return broken("a block of file %d has %d bytes, not %d", number, got, length)
	}
	return nil
}
