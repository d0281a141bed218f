package squashfs

import (
	"bytes"
	"fmt"
	"io"

	"github.com/klauspost/compress/zlib"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/therootcompany/xz"
)

// A decompressor undoes the compression of one block, and returns at most
// limit bytes: more are an error, and take no memory.
type decompressor func(packed []byte, limit int) ([]byte, error)

// Compressors, as the superblock names them.
const (
	compressionGzip = 1
	compressionLZMA = 2
	compressionLZO  = 3
	compressionXZ   = 4
	compressionLZ4  = 5
)

// newDecompressor returns the one for a file's compressor.
func newDecompressor(compression uint16) (decompressor, error) {
	switch compression {
	case compressionGzip:
		return inflate, nil
	case compressionLZO:
		return unpackLZO, nil
	case compressionXZ:
		return unpackXZ, nil
	case compressionLZ4:
		return unpackLZ4, nil
	case compressionZstd:
		return newUnpackZstd()
	case compressionLZMA:
		return nil, broken("it is compressed with lzma, which Linux does not read either")
	}
	return nil, broken("unknown compressor %d", compression)
}

// readLimited reads one block from r.
func readLimited(r io.Reader, limit int) ([]byte, error) {
	data := make([]byte, limit+1)
	n, err := io.ReadFull(r, data)
	switch {
	case err == nil:
		return nil, fmt.Errorf("more than %d bytes", limit)
	case err == io.EOF || err == io.ErrUnexpectedEOF:
		return data[:n], nil
	}
	return nil, err
}

// inflate undoes zlib, which squashfs calls gzip.
func inflate(packed []byte, limit int) ([]byte, error) {
	z, err := zlib.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, err
	}
	defer z.Close()
	data := make([]byte, limit+1)
	n := 0
	for n <= limit { // io.ReadFull would not tell a cut from the end
		var got int
		got, err = z.Read(data[n:])
		n += got
		switch {
		case n > limit:
		case err == io.EOF:
			return data[:n], nil
		case err != nil:
			return nil, err
		}
	}
	return nil, fmt.Errorf("more than %d bytes", limit)
}

// maxXZDictionary bounds the memory that a block may claim, in bytes; blocks
// of data have 1 MiB at most.
const maxXZDictionary = 16 << 20

func unpackXZ(packed []byte, limit int) ([]byte, error) {
	r, err := xz.NewReader(bytes.NewReader(packed), maxXZDictionary)
	if err != nil {
		return nil, err
	}
	return readLimited(r, limit)
}

func unpackLZ4(packed []byte, limit int) ([]byte, error) {
	data := make([]byte, limit)
	n, err := lz4.UncompressBlock(packed, data)
	return data[:max(n, 0)], err
}

func newUnpackZstd() (decompressor, error) {
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxMemory(maxXZDictionary))
	if err != nil {
		return nil, err
	}
	return func(packed []byte, limit int) ([]byte, error) {
		data, err := dec.DecodeAll(packed, make([]byte, 0, limit))
		if err == nil && len(data) > limit {
			err = fmt.Errorf("more than %d bytes", limit)
		}
		return data, err
	}, nil
}
