package imagecache

import (
	"bufio"
	"bytes"
	"io"

	"github.com/klauspost/compress/zstd"
	"github.com/therootcompany/xz"

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

// explain says of a decompressor's error that what it reads is to blame, unless
// reading on to the end of what it reads from shows that the bytes are not the
// ones that were pushed.
func explain(err error, from io.Reader, what string) error {
	if isOurs(err) {
		return err
	}
	if _, rest := io.Copy(io.Discard, from); rest != nil && isOurs(rest) {
		return rest
	}
	return damaged("%s cannot be decompressed: %w", what, err)
}

// explaining is a decompressor whose errors are explained.
type explaining struct {
	io.Reader
	from io.Reader
	what string
}

// Read implements io.Reader.
func (e explaining) Read(p []byte) (int, error) {
	n, err := e.Reader.Read(p)
	if err != nil && err != io.EOF {
		err = explain(err, e.from, e.what)
	}
	return n, err
}

// decompress undoes the compression of a layer.
func decompress(r io.Reader) (io.ReadCloser, error) { return decompressed(r, "a layer") }

// maxXZDictionary bounds the memory that xz may claim, in bytes: xz -9 asks
// for 64 MiB.
const maxXZDictionary = 64 << 20

// decompressed undoes gzip, zstd or xz, told by the first bytes; media types and
// file names lie. What is none of them passes through. what is said of what
// cannot be decompressed. Closing the result does not close r.
func decompressed(r io.Reader, what string) (io.ReadCloser, error) {
	br := bufio.NewReaderSize(r, 64<<10)
	head, err := br.Peek(6)
	if err != nil && err != io.EOF {
		return nil, err
	}
	nothing := func() error { return nil }
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		z := inflate.NewReader(br, func(err error) error { return explain(err, br, what) })
		return readCloser{z, z.Close}, nil
	case bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		z, err := zstd.NewReader(br, zstd.WithDecoderMaxWindow(maxZstdWindow), zstd.WithDecoderConcurrency(2))
		if err != nil {
			return nil, damaged("%s is not zstd: %w", what, err)
		}
		return readCloser{explaining{z, br, what}, func() error { z.Close(); return nil }}, nil
	case bytes.Equal(head, []byte{0xfd, '7', 'z', 'X', 'Z', 0}):
		z, err := xz.NewReader(br, maxXZDictionary)
		if err != nil {
			return nil, damaged("%s is not xz: %w", what, err)
		}
		return readCloser{explaining{z, br, what}, nothing}, nil
	}
	return readCloser{br, nothing}, nil
}
