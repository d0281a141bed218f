package imagecache

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/berth-hpc/berth/fault"
)

// zeroBytes are n of them, with pieces of other bytes before and after.
func zeroBytes(n int64, before, after []byte) io.Reader {
	return io.MultiReader(bytes.NewReader(before), io.LimitReader(readerFunc(func(p []byte) (int, error) {
		clear(p)
		return len(p), nil
	}), n), bytes.NewReader(after))
}

// packedBy compresses r.
func packedBy(t *testing.T, how string, r io.Reader) []byte {
	t.Helper()
	var b bytes.Buffer
	var w io.WriteCloser
	var err error
	switch how {
	case "gzip":
		w, err = gzip.NewWriterLevel(&b, gzip.BestSpeed)
	case "zstd":
		w, err = zstd.NewWriter(&b, zstd.WithEncoderConcurrency(1))
	}
	if err == nil {
		_, err = io.Copy(w, r)
		err = errors.Join(err, w.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// tarHead is the header of a file of that size.
func tarHead(t *testing.T, name string, size int64) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := tar.NewWriter(&b).WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: size}); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestHostileImages pulls images made to do harm, each through both converters
// with limits that they break. All end with a fault of the image's that names
// limit and setting, soon, without much memory, and leave nothing.
func TestHostileImages(t *testing.T) {
	const size = 256 << 20
	head := tarHead(t, "zeros", size)
	end := make([]byte, 1024)
	many := func(n int, f func(i int) entry) []byte {
		var all []entry
		for i := range n {
			all = append(all, f(i))
		}
		return tarOf(t, all...)
	}
	long := strings.Repeat("x", 250)
	for name, test := range map[string]struct {
		layer   []byte
		layers  int
		limits  Limits
		setting string
	}{
		"gzip bomb":               {packedBy(t, "gzip", zeroBytes(size, head, end)), 1, Limits{Free: 1 << 20, Ratio: 50}, "limits.ratio"},
		"zstd bomb":               {packedBy(t, "zstd", zeroBytes(size, head, end)), 1, Limits{Free: 1 << 20}, "limits.ratio"},
		"bomb behind the archive": {packedBy(t, "gzip", zeroBytes(size, tarOf(t, file("f", 0o644, "x")), nil)), 1, Limits{Free: 1 << 20}, "limits.ratio"},
		"padding without end":     {packedBy(t, "zstd", zeroBytes(size, tarOf(t, file("f", 0o644, "x")), nil)), 1, Limits{Bytes: 32 << 20}, "limits.bytes"},
		"bomb over the size":      {packedBy(t, "zstd", zeroBytes(size, head, end)), 1, Limits{Bytes: 32 << 20}, "limits.bytes"},
		"sizes that add up":       {packedBy(t, "gzip", zeroBytes(20<<20, tarHead(t, "f", 20<<20), end)), 3, Limits{Bytes: 50 << 20}, "limits.bytes"},
		"a hole":                  {readAll(t, sparseTar(t, 1<<40)), 1, Limits{Bytes: 1 << 30}, "limits.bytes"},
		"entries":                 {many(2000, func(i int) entry { return file(fmt.Sprint(i), 0o644, "") }), 1, Limits{Entries: 1500}, "limits.entries"},
		"entries of all layers":   {many(800, func(i int) entry { return file(fmt.Sprint(i), 0o644, "") }), 2, Limits{Entries: 1500}, "limits.entries"},
		"folders on the way":      {many(100, func(i int) entry { return file(fmt.Sprint(i)+strings.Repeat("/d", 20)+"/f", 0o644, "") }), 1, Limits{Entries: 1500}, "limits.entries"},
		"marks":                   {many(2000, func(i int) entry { return whiteout(fmt.Sprint(".wh.", i)) }), 1, Limits{Entries: 1500}, "limits.entries"},
		"long targets":            {many(300, func(i int) entry { return symlink(fmt.Sprint(i), strings.Repeat("t", 4000)) }), 1, Limits{Entries: 1500}, "limits.entries"},
		"long names":              {many(300, func(i int) entry { return file(strings.Repeat(long+"/", 14)+fmt.Sprint(i), 0o644, "") }), 1, Limits{Entries: 1500}, "limits.entries"},
		"layers":                  {tarOf(t, file("f", 0o644, "")), 20, Limits{Layers: 19}, "limits.layers"},
	} {
		plain := test.layer // the diffID of bombs is not looked at so early
		if test.layers > 1 {
			body, err := decompress(bytes.NewReader(test.layer))
			if err != nil {
				t.Fatal(err)
			}
			plain = readAll(t, body)
		}
		l := layerOf(test.layer, plain, types.OCIUncompressedLayer)
		all := make([]v1.Layer, test.layers)
		for i := range all {
			all[i] = l
		}
		ref := writeLayout(t, imageOfLayers(t, all...))
		for _, c := range []Converter{Stream{Limits: test.limits}, Umoci{Limits: test.limits}} {
			t.Run(name+"/"+c.Name(), func(t *testing.T) {
				s := openStore(t)
				began, before := time.Now(), heap()
				_, err := Pull(testContext(t), s, ref, FetchOptions{Converter: c})
				if err == nil || fault.Of(err) != fault.User || !strings.Contains(err.Error(), "("+test.setting+")") || !strings.Contains(fault.Remedy(err), test.setting) {
					t.Errorf("got %v (%v), remedy %q", err, fault.Of(err), fault.Remedy(err))
				}
				if grown := heap() - before; grown > 256<<20 || time.Since(began) > 20*time.Second {
					t.Errorf("it took %v and %d MB", time.Since(began), grown>>20)
				}
				checkNoLeftovers(t, s.Root())
			})
		}
	}
}

// heap is how much memory was taken from the system for it, in bytes.
func heap() int64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapSys)
}

func readAll(t *testing.T, r io.Reader) []byte {
	t.Helper()
	raw, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// TestLimitsLetThrough: what is just within them is converted.
func TestLimitsLetThrough(t *testing.T) {
	const size = 16 << 20
	raw := readAll(t, zeroBytes(size, tarHead(t, "zeros", size), make([]byte, 1024)))
	packed := packedBy(t, "zstd", bytes.NewReader(raw))
	ref := writeLayout(t, imageOfLayers(t, layerOf(packed, raw, types.OCILayerZStd)))
	limits := Limits{Entries: 1, Bytes: int64(len(raw)), Free: int64(len(raw)), Layers: 1}
	for _, c := range []Converter{Stream{Limits: limits}, Umoci{Limits: limits}} {
		if _, err := Pull(testContext(t), openStore(t), ref, FetchOptions{Converter: c}); err != nil {
			t.Errorf("%s: %v", c.Name(), err)
		}
	}
}

// TestManifestLimit: what is larger than the limit is not read to its end.
func TestManifestLimit(t *testing.T) {
	reg := faultyRegistry(t, imageOf(t, tarOf(t, file("f", 0o644, "x"))))
	ref := mustParse(t, reg.Host+"/x:1")
	for limit, ok := range map[int64]bool{100: false, 1 << 20: true, 0: true} {
		net := impatient()
		net.MaxManifest = limit
		_, err := Pull(testContext(t), openStore(t), ref, FetchOptions{Network: net})
		if (err == nil) != ok || err != nil && !strings.Contains(fault.Remedy(err), "limits.manifest") {
			t.Errorf("%d: %v, remedy %q", limit, err, fault.Remedy(err))
		}
	}
}

// TestOversizedHeaders: what tar keeps in memory for one entry is bounded, also
// where a bomb has no end.
func TestOversizedHeaders(t *testing.T) {
	block := func(name string, flag byte, size int64, rest ...byte) []byte {
		b := make([]byte, 512)
		copy(b, name)
		copy(b[100:], "0000644\x00")
		copy(b[124:], fmt.Sprintf("%011o\x00", size))
		copy(b[136:], "00000000000\x00")
		b[156] = flag
		copy(b[257:], "ustar  \x00")
		copy(b[386:], rest)
		copy(b[148:], "        ")
		sum := 0
		for _, c := range b {
			sum += int(c)
		}
		copy(b[148:], fmt.Sprintf("%06o\x00 ", sum))
		return b
	}
	extended := make([]byte, 512)
	extended[504] = 1 // one more follows
	sparse := make([]byte, 512-386)
	sparse[96] = 1
	for name, head := range map[string]struct{ first, repeat []byte }{
		"PAX":          {block("pax", 'x', 1<<30), bytes.Repeat([]byte("20 comment=xxxxxxxx\n"), 1000)},
		"long name":    {block("name", 'L', 1<<30), bytes.Repeat([]byte("n"), 4096)},
		"sparse file":  {block("sparse", 'S', 0, sparse...), extended},
		"PAX, chained": {nil, append(block("pax", 'x', 512), bytes.Repeat([]byte("16 comment=xxxx\n"), 32)...)},
	} {
		for _, c := range []Converter{Stream{}, Umoci{}} {
			t.Run(name+"/"+c.Name(), func(t *testing.T) {
				work := t.TempDir()
				before := heap()
				full := io.MultiReader(bytes.NewReader(head.first), &repeated{unit: head.repeat})
				err := c.Convert(testContext(t), oneLayer{full}, work, filepath.Join(t.TempDir(), "out"), nil)
				if err == nil {
					t.Error("it was converted")
				}
				if grown := heap() - before; grown > 128<<20 {
					t.Errorf("%d MB of memory", grown>>20)
				}
			})
		}
	}
}

// repeated is unit again and again, 256 MiB in all.
type repeated struct {
	unit []byte
	at   int
	n    int64
}

// Read implements io.Reader.
func (e *repeated) Read(p []byte) (int, error) {
	if e.n > 256<<20 {
		return 0, io.EOF
	}
	n := copy(p, e.unit[e.at:])
	e.at = (e.at + n) % len(e.unit)
	e.n += int64(n)
	return n, nil
}

// TestHugeHole converts a file of 64 GiB of nothing, which nobody may compress.
func TestHugeHole(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	const size = 64 << 30
	began := time.Now()
	out, err := convertStream(t, Stream{}, oneLayer{sparseTar(t, size)})
	if err != nil {
		t.Fatal(err)
	}
	checkStructure(t, out)
	info, err := os.Stat(out)
	if err != nil || info.Size() > 8<<20 {
		t.Errorf("%d bytes, %v", info.Size(), err)
	}
	t.Logf("64 GiB in %v", time.Since(began))
}

// TestCancelledInAHole: a pull ends at once, also in the middle of nothing.
func TestCancelledInAHole(t *testing.T) {
	ctx, cancel := context.WithTimeout(testContext(t), 300*time.Millisecond)
	defer cancel()
	began := time.Now()
	err := (Stream{}).Convert(ctx, oneLayer{sparseTar(t, 1<<39)}, "", filepath.Join(t.TempDir(), "out"), nil)
	if !errors.Is(err, context.DeadlineExceeded) || time.Since(began) > time.Minute {
		t.Errorf("%v after %v", err, time.Since(began))
	}
}
