package squashfs

import (
	"io"
)

// Content returns the bytes of a Regular. It reads n.Size bytes, or ends with
// an error. Several may be read in turns.
func (d *Reader) Content(n *Node) io.Reader {
	c := &content{d: d, sizes: n.sizes, at: n.start, left: uint64(n.Size), node: n}
	c.blocks = c.left / uint64(d.sb.BlockSize)
	if n.fragment == noFragment && c.left%uint64(d.sb.BlockSize) > 0 {
		c.blocks++
	}
	return c
}

// content reads one file.
type content struct {
	d      *Reader
	node   *Node
	sizes  cursor
	at     uint64 // of the next block
	blocks uint64 // to come
	left   uint64 // bytes not in data yet
	data   []byte
}

// Read implements io.Reader.
func (c *content) Read(p []byte) (int, error) {
	for len(c.data) == 0 {
		if c.left == 0 {
			return 0, io.EOF
		}
		if err := c.fill(); err != nil {
			return 0, err
		}
		c.left -= uint64(len(c.data))
	}
	n := copy(p, c.data)
	c.data = c.data[n:]
	return n, nil
}

// fill reads the next block, or the end of the file from its fragment.
func (c *content) fill() error {
	if c.blocks == 0 {
		return c.fillFragment()
	}
	c.blocks--
	want := int(min(uint64(c.d.sb.BlockSize), c.left))
	rec, err := c.sizes.take(4)
	if err != nil {
		return err
	}
	size := le.Uint32(rec)
	if size == 0 { // a hole
		if c.d.zeros == nil {
			c.d.zeros = make([]byte, c.d.sb.BlockSize)
		}
		c.data = c.d.zeros[:want]
		return nil
	}
	c.data, err = c.d.dataBlock(c.at, size, want)
	c.at += uint64(size &^ storedBlock)
	if err == nil && len(c.data) != want {
		err = broken("a block of file %d has %d bytes, not %d", c.node.Number, len(c.data), want)
	}
	return err
}

func (c *content) fillFragment() error {
	data, err := c.d.readFragment(c.node.fragment)
	if err != nil {
		return err
	}
	from, to := uint64(c.node.offset), uint64(c.node.offset)+c.left
	if to > uint64(len(data)) {
		return broken("file %d goes beyond its fragment", c.node.Number)
	}
	c.data = data[from:to]
	return nil
}

// dataBlock reads a block of data, of at most limit bytes when decompressed.
func (d *Reader) dataBlock(at uint64, size uint32, limit int) ([]byte, error) {
	length := size &^ storedBlock
	if length > d.sb.BlockSize {
		return nil, broken("a block of %d bytes", length)
	}
	raw := make([]byte, length)
	if err := d.readAt(raw, at); err != nil {
		return nil, err
	}
	if size&storedBlock != 0 {
		return raw, nil
	}
	return d.expand(raw, limit)
}

// readFragment returns a block that small files share. Files that lie one
// after the other ask for the same one.
func (d *Reader) readFragment(number uint32) ([]byte, error) {
	if d.fragmentData != nil && d.fragment == number {
		return d.fragmentData, nil
	}
	if number >= d.sb.Fragments {
		return nil, broken("fragment %d of %d", number, d.sb.Fragments)
	}
	const perBlock = metadataSize / fragmentSize
	var place [8]byte
	if err := d.readAt(place[:], d.sb.FragTable+uint64(number/perBlock)*8); err != nil {
		return nil, err
	}
	c, err := d.cursor(le.Uint64(place[:]), int(number%perBlock)*fragmentSize)
	if err != nil {
		return nil, err
	}
	rec, err := c.take(fragmentSize)
	if err != nil {
		return nil, err
	}
	data, err := d.dataBlock(le.Uint64(rec), le.Uint32(rec[8:]), int(d.sb.BlockSize))
	if err == nil {
		d.fragment, d.fragmentData = number, data
	}
	return data, err
}
