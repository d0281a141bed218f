package squashfs

import (
	"bytes"
	"errors"
	"os"
	"testing"

	"github.com/klauspost/compress/zstd"
)

func frame(t *testing.T, plain []byte, opts ...zstd.EOption) []byte {
	t.Helper()
	enc, err := zstd.NewWriter(nil, opts...)
	if err != nil {
		t.Fatal(err)
	}
	defer enc.Close()
	return enc.EncodeAll(plain, nil)
}

// streamed is a frame that does not tell its size, so that it needs a window.
func streamed(t *testing.T, plain []byte, window int) []byte {
	t.Helper()
	var b bytes.Buffer
	enc, err := zstd.NewWriter(&b, zstd.WithWindowSize(window), zstd.WithEncoderConcurrency(1))
	if err == nil {
		_, err = enc.Write(plain)
		err = errors.Join(err, enc.Flush(), enc.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestOneFrame: Linux would see something else in these than a decompressor
// that reads on.
func TestOneFrame(t *testing.T) {
	plain := words(1, 5000)
	good := frame(t, plain)
	skippable := []byte("\x50\x2a\x4d\x18\x01\x00\x00\x00x")
	for name, test := range map[string]struct {
		packed []byte
		ok     bool
	}{
		"with a sum":          {good, true},
		"without":             {frame(t, plain, zstd.WithEncoderCRC(false)), true},
		"repeated bytes":      {frame(t, make([]byte, 5000)), true},
		"what is stored":      {frame(t, chacha(5000)), true},
		"a small window":      {streamed(t, plain, 8<<10), true},
		"a large window":      {streamed(t, plain, 1<<20), false},
		"two frames":          {append(bytes.Clone(good), good...), false},
		"skipped before":      {append(bytes.Clone(skippable), good...), false},
		"skipped behind":      {append(bytes.Clone(good), skippable...), false},
		"something behind":    {append(bytes.Clone(good), 0), false},
		"no end":              {good[:len(good)-5], false},
		"no block":            {good[:6], false},
		"nothing":             {nil, false},
		"larger than a block": {frame(t, words(1, 2*BlockSize), zstd.WithSingleSegment(true)), false},
	} {
		if err := oneFrame(test.packed, BlockSize); (err == nil) != test.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestCheckContents damages data, which is an error only for who looks.
func TestCheckContents(t *testing.T) {
	good, err := os.ReadFile(write(t, 1, small(t)))
	if err != nil {
		t.Fatal(err)
	}
	sb := readSuperblock(good)
	bad := bytes.Clone(good)
	clear(bad[superblockSize+5000:][:1000])
	for name, test := range map[string]struct {
		raw  []byte
		opts CheckOptions
		ok   bool
	}{
		"good":              {good, CheckOptions{Contents: true}, true},
		"bad":               {bad, CheckOptions{Contents: true}, false},
		"bad, and not seen": {bad, CheckOptions{}, true},
		"too much":          {good, CheckOptions{Contents: true, MaxContents: 2 * BlockSize}, false},
		"too long tables":   {good, CheckOptions{MaxMetadata: int64(sb.DirTable - sb.InodeTable)}, false},
		"long tables":       {good, CheckOptions{MaxMetadata: 4 * int64(sb.BytesUsed-sb.InodeTable)}, true},
	} {
		err := Check(bytes.NewReader(test.raw), int64(len(test.raw)), test.opts)
		if (err == nil) != test.ok || err != nil && !errors.Is(err, ErrStructure) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestCheckRefusesIndexes changes the index of a directory, which is not
// compressed: a lookup would begin within another record.
func TestCheckRefusesIndexes(t *testing.T) {
	good, err := os.ReadFile(write(t, 1, small(t)))
	if err != nil {
		t.Fatal(err)
	}
	sb := readSuperblock(good)
	inodes := good[sb.InodeTable:sb.DirTable]
	at := bytes.Index(inodes, []byte("name-of-file-"))
	if at < 12 {
		t.Fatal("no index")
	}
	for name, field := range map[string]int{"place": -12, "block": -8, "name": 3} {
		bad := bytes.Clone(good)
		bad[int(sb.InodeTable)+at+field]++
		if err := Check(bytes.NewReader(bad), int64(len(bad)), CheckOptions{}); !errors.Is(err, ErrStructure) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestCheckRefusesGaps moves the last table back. Linux does not mount a file
// whose tables do not follow each other.
func TestCheckRefusesGaps(t *testing.T) {
	good, err := os.ReadFile(write(t, 1, small(t)))
	if err != nil {
		t.Fatal(err)
	}
	const gap = 8
	sb := readSuperblock(good)
	ids := le.Uint64(good[sb.IDTable:])
	bad := bytes.Join([][]byte{good[:ids], make([]byte, gap), good[ids:sb.BytesUsed]}, nil)
	le.PutUint64(bad[sb.IDTable+gap:], ids+gap)
	le.PutUint64(bad[40:], sb.BytesUsed+gap)
	le.PutUint64(bad[48:], sb.IDTable+gap)
	if err := Check(bytes.NewReader(bad), int64(len(bad)), CheckOptions{}); !errors.Is(err, ErrStructure) {
		t.Errorf("got %v", err)
	}
}
