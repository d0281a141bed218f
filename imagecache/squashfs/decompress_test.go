package squashfs

import (
	"bytes"
	"testing"

	"github.com/klauspost/compress/zlib"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// packings are a text of 4,000 bytes as compressors other than xz pack it, for
// which there is no writer in Go; TestReadFile has xz.
func packings(t *testing.T, text []byte) map[uint16][]byte {
	t.Helper()
	var deflated bytes.Buffer
	w := zlib.NewWriter(&deflated)
	if _, err := w.Write(text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	block := make([]byte, lz4.CompressBlockBound(len(text)))
	n, err := lz4.CompressBlock(text, block, nil)
	if err != nil {
		t.Fatal(err)
	}
	// LZO: 4 literals "aaaa", a match of 3,996 bytes one back (15 times 255,
	// 138, and the 33 of the instruction), the end.
	lzo := append([]byte{21, 'a', 'a', 'a', 'a', 32}, make([]byte, 15)...)
	lzo = append(lzo, 138, 0, 0, 17, 0, 0)
	return map[uint16][]byte{compressionGzip: deflated.Bytes(), compressionZstd: enc.EncodeAll(text, nil), compressionLZ4: block[:n], compressionLZO: lzo}
}

// TestDecompressLimits: what a block may hold is what it gets, and no byte more.
func TestDecompressLimits(t *testing.T) {
	text := bytes.Repeat([]byte("a"), 4000)
	for compressor, packed := range packings(t, text) {
		unpack, err := newDecompressor(compressor)
		if err != nil {
			t.Fatal(err)
		}
		for _, limit := range []int{4000, 4001, 8192} {
			if got, err := unpack(packed, limit); err != nil || !bytes.Equal(got, text) {
				t.Errorf("compressor %d, limit %d: %d bytes, %v", compressor, limit, len(got), err)
			}
		}
		for _, limit := range []int{0, 1, 3999} {
			if got, err := unpack(packed, limit); err == nil {
				t.Errorf("compressor %d, limit %d: %d bytes", compressor, limit, len(got))
			}
		}
		for cut := range packed {
			if got, err := unpack(packed[:cut], 8192); err == nil && bytes.Equal(got, text) {
				t.Errorf("compressor %d: complete without its last %d bytes", compressor, len(packed)-cut)
			}
		}
	}
	for _, compressor := range []uint16{0, compressionLZMA, 7} {
		if _, err := newDecompressor(compressor); err == nil {
			t.Errorf("compressor %d is known", compressor)
		}
	}
}
