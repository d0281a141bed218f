package squashfs

import "github.com/klauspost/compress/zstd"

// metadata collects records in blocks of 8 KiB, each compressed by itself with
// a header of two bytes.
type metadata struct {
	enc    *zstd.Encoder // nil: blocks are stored as they are
	out    []byte
	buf    []byte
	pack   []byte
	starts []uint64 // of the blocks in out
}

func newMetadata(enc *zstd.Encoder) *metadata {
	return &metadata{enc: enc, buf: make([]byte, 0, metadataSize)}
}

// at returns where the next byte will be: the start of its block, counted from
// the start of the table, and the offset in the uncompressed block.
func (m *metadata) at() (start uint64, offset uint32) {
	return uint64(len(m.out)), uint32(len(m.buf))
}

// put appends a record, which may go over several blocks.
func (m *metadata) put(p []byte) {
	for len(p) > 0 {
		n := min(len(p), metadataSize-len(m.buf))
		m.buf = append(m.buf, p[:n]...)
		p = p[n:]
		if len(m.buf) == metadataSize {
			m.flush()
		}
	}
}

func (m *metadata) flush() {
	data, head := m.buf, uint16(len(m.buf))|storedMetadata
	if m.enc != nil {
		m.pack = m.enc.EncodeAll(m.buf, m.pack[:0])
		if len(m.pack) < len(m.buf) {
			data, head = m.pack, uint16(len(m.pack))
		}
	}
	m.starts = append(m.starts, uint64(len(m.out)))
	m.out = append(le.AppendUint16(m.out, head), data...)
	m.buf = m.buf[:0]
}

// finish returns the whole table.
func (m *metadata) finish() []byte {
	if len(m.buf) > 0 {
		m.flush()
	}
	return m.out
}
