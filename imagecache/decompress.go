package imagecache

import (
	"bufio"
	"bytes"
	"io"

	"github.com/klauspost/compress/zstd"

	"github.com/berth-hpc/berth/imagecache/inflate"
)

// maxZstdWindow bounds the memory that one zstd layer may claim, in bytes.
// 128 MiB is what zstd --ultra --long=27 asks for, and the zstd tool's limit.
const maxZstdWindow = 128 << 20

// readCloser is a Reader with a Close of its own.
type readCloser struct {
	io.Reader
	close func() error
}

// Close implements io.Closer.
func (r readCloser) Close() error { return r.close() }

// explain says of a decompressor's error that the layer is to blame, unless
// reading on to the end of what it reads from shows that the bytes are not the
// ones that were pushed.
func explain(err error, from io.Reader) error {
	if isOurs(err) {
		return err
	}
	if _, rest := io.Copy(io.Discard, from); rest != nil && isOurs(rest) {
		return rest
	}
	return damaged("a layer cannot be decompressed: %w", err)
}

// explaining is a decompressor whose errors are explained.
type explaining struct {
	io.Reader
	from io.Reader
}

// Read implements io.Reader.
func (e explaining) Read(p []byte) (int, error) {
	n, err := e.Reader.Read(p)
	if err != nil && err != io.EOF {
		err = explain(err, e.from)
	}
	return n, err
}

// decompress undoes gzip or zstd, told by the first bytes; media types lie.
// What is neither passes through. Closing it does not close r.
func decompress(r io.Reader) (io.ReadCloser, error) {
	br := bufio.NewReaderSize(r, 64<<10)
	head, err := br.Peek(4)
	if err != nil && err != io.EOF {
		return nil, err
	}
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		z := inflate.NewReader(br, func(err error) error { return explain(err, br) })
		return readCloser{z, z.Close}, nil
	case bytes.Equal(head, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		z, err := zstd.NewReader(br, zstd.WithDecoderMaxWindow(maxZstdWindow), zstd.WithDecoderConcurrency(2))
		if err != nil {
			return nil, damaged("a layer is not zstd: %w", err)
		}
		return readCloser{explaining{z, br}, func() error { z.Close(); return nil }}, nil
	}
	return readCloser{br, func() error { return nil }}, nil
}
