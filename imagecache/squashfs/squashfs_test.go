package squashfs

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
)

// write makes a squashfs file of what build adds.
func write(t testing.TB, workers int, build func(w *Writer) *Inode) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "out.sqfs")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w, err := NewWriter(f, Options{Workers: workers})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if _, err := w.Finish(build(w)); err != nil {
		t.Fatal(err)
	}
	return name
}

func add(t testing.TB, w *Writer, content []byte) *File {
	t.Helper()
	f, err := w.AddFile(bytes.NewReader(content), int64(len(content)))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func folder(entries ...Entry) *Inode { return &Inode{Kind: Dir, Mode: 0o755, Entries: entries} }

// words is content that compresses, but not to nothing.
func words(seed uint64, size int) []byte {
	r := rand.New(rand.NewPCG(seed, 2))
	var b bytes.Buffer
	for b.Len() < size {
		fmt.Fprintf(&b, "%x ", r.IntN(5000))
	}
	return b.Bytes()[:size]
}

// varied is a tree with something of everything.
func varied(t testing.TB) func(w *Writer) *Inode {
	return func(w *Writer) *Inode {
		linked := &Inode{Kind: Regular, Mode: 0o644, File: add(t, w, words(1, 3*BlockSize+17))}
		hole := &Inode{Kind: Regular, Mode: 0o644, File: add(t, w, append(make([]byte, 5*BlockSize), "end"...))}
		var many []Entry
		for i := range 3000 {
			content := words(uint64(i), i%700)
			many = append(many, Entry{fmt.Sprintf("name-of-file-%05d", i), &Inode{Kind: Regular, Mode: 0o444, MTime: uint32(i), File: add(t, w, content)}})
		}
		return folder(
			Entry{"a", linked}, Entry{"b", folder(Entry{"again", linked}, Entry{"pipe", &Inode{Kind: Fifo, Mode: 0o600}})},
			Entry{"empty", folder()}, Entry{"hole", hole}, Entry{"link", &Inode{Kind: Symlink, Mode: 0o777, Target: strings.Repeat("t", MaxTarget)}},
			Entry{"many", folder(many...)}, Entry{"nothing", &Inode{Kind: Regular, Mode: 0o644}},
		)
	}
}

func check(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	return Check(f, info.Size(), CheckOptions{})
}

func TestCheckTakesWhatIsWritten(t *testing.T) {
	for name, build := range map[string]func(*Writer) *Inode{
		"varied": varied(t),
		"empty":  func(*Writer) *Inode { return folder() },
	} {
		if err := check(write(t, 2, build)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSameBytes(t *testing.T) {
	build := func(w *Writer) *Inode {
		var entries []Entry
		for i := range 60 {
			entries = append(entries, Entry{fmt.Sprintf("%03d", i), &Inode{Kind: Regular, File: add(t, w, words(uint64(i), i*20_000))}})
		}
		return folder(entries...)
	}
	want, err := os.ReadFile(write(t, 1, build))
	if err != nil {
		t.Fatal(err)
	}
	for _, workers := range []int{1, 2, 8} {
		if got, err := os.ReadFile(write(t, workers, build)); err != nil || !bytes.Equal(got, want) {
			t.Errorf("other bytes with %d workers, %v", workers, err)
		}
	}
}

func TestNamesThatCannotBe(t *testing.T) {
	for _, names := range [][]string{{""}, {"."}, {".."}, {"a/b"}, {"a\x00"}, {strings.Repeat("x", 256)}, {"b", "a"}, {"a", "a"}} {
		var entries []Entry
		for _, n := range names {
			entries = append(entries, Entry{n, &Inode{Kind: Fifo}})
		}
		w, err := NewWriter(&memory{}, Options{Workers: 1})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Finish(folder(entries...)); err == nil {
			t.Errorf("%q were written", names)
		}
		w.Close()
	}
}

// memory is an Output that is no file.
type memory struct {
	b     []byte
	limit int // fails behind it, unless 0
}

var errFull = errors.New("full")

// Write implements io.Writer.
func (m *memory) Write(p []byte) (int, error) {
	if m.limit > 0 && len(m.b)+len(p) > m.limit {
		return 0, errFull
	}
	m.b = append(m.b, p...)
	return len(p), nil
}

// WriteAt implements io.WriterAt.
func (m *memory) WriteAt(p []byte, at int64) (int, error) { return copy(m.b[at:], p), nil }

func TestErrorsOfBothEnds(t *testing.T) {
	for name, test := range map[string]struct {
		limit int
		r     io.Reader
		want  error
	}{
		"full disk":        {superblockSize + 3<<20, rand.NewChaCha8([32]byte{}), errFull},
		"broken stream":    {0, io.MultiReader(bytes.NewReader(words(1, 1<<20)), iotest.ErrReader(errFull)), errFull},
		"content too long": {0, bytes.NewReader(words(1, 1<<20)), io.ErrUnexpectedEOF},
	} {
		w, err := NewWriter(&memory{limit: test.limit}, Options{Workers: 2})
		if err != nil {
			t.Fatal(err)
		}
		f, err := w.AddFile(test.r, 64<<20)
		if err == nil {
			_, err = w.Finish(folder(Entry{"f", &Inode{Kind: Regular, File: f}}))
		}
		if !errors.Is(err, test.want) {
			t.Errorf("%s: got %v", name, err)
		}
		w.Close()
	}
}

// TestCheckRefuses changes fields of a good file to what they must not be.
func TestCheckRefuses(t *testing.T) {
	good, err := os.ReadFile(write(t, 1, varied(t)))
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name string
		at   int // in the superblock
		put  any
	}{
		{"magic", 0, uint32(1)},
		{"fewer inodes", 4, uint32(3)},
		{"more inodes", 4, uint32(9000)},
		{"no inodes", 4, uint32(0)},
		{"block size", 12, uint32(1 << 16)},
		{"fragments", 16, uint32(100)},
		{"many fragments", 16, uint32(1 << 31)},
		{"compressor", 20, uint16(1)},
		{"block log", 22, uint16(40)},
		{"options of the compressor", 24, uint16(flagNoXattrs | flagCompressorOptions)},
		{"owners", 26, uint16(0)},
		{"more owners", 26, uint16(4000)},
		{"version", 28, uint16(3)},
		{"root", 32, uint64(5)},
		{"root behind the end", 32, uint64(1 << 60)},
		{"size", 40, uint64(1 << 40)},
		{"small", 40, uint64(100)},
		{"id table", 48, uint64(96)},
		{"attributes", 56, uint64(96)},
		{"inode table", 64, uint64(96)},
		{"directory table", 72, uint64(97)},
		{"fragment table", 80, uint64(1 << 50)},
		{"export table", 88, uint64(100)},
	} {
		bad := bytes.Clone(good)
		var b bytes.Buffer
		_ = binary.Write(&b, le, test.put)
		copy(bad[test.at:], b.Bytes())
		if err := Check(bytes.NewReader(bad), int64(len(bad)), CheckOptions{}); !errors.Is(err, ErrStructure) {
			t.Errorf("%s: got %v", test.name, err)
		}
	}
	for _, size := range []int{0, 10, 96, len(good) / 2, len(good) - padding} {
		if err := Check(bytes.NewReader(good[:size]), int64(size), CheckOptions{}); !errors.Is(err, ErrStructure) {
			t.Errorf("cut to %d bytes: got %v", size, err)
		}
	}
	if err := Check(bytes.NewReader(good), int64(len(good)), CheckOptions{MaxInodes: 100}); !errors.Is(err, ErrStructure) {
		t.Errorf("above the limit: got %v", err)
	}
}

// TestCheckRefusesTrees writes trees that are wrong, which Writer is made to do
// by changing records before they are written.
func TestCheckRefusesTrees(t *testing.T) {
	shared := folder()
	for name, build := range map[string]func() *Inode{
		"a directory in two places": func() *Inode { return folder(Entry{"a", shared}, Entry{"b", shared}) },
		"a file that shares a number": func() *Inode {
			return folder(Entry{"a", &Inode{Kind: Fifo, number: 1}})
		},
		"a block outside of the data": func() *Inode {
			return folder(Entry{"a", &Inode{Kind: Regular, File: &File{size: 10, start: 1 << 40, blocks: []uint32{10}, fragment: noFragment}}})
		},
		"a block that is too long": func() *Inode {
			return folder(Entry{"a", &Inode{Kind: Regular, File: &File{size: 10, start: 96, blocks: []uint32{BlockSize + 1}, fragment: noFragment}}})
		},
		"a stored block of nothing": func() *Inode {
			return folder(Entry{"a", &Inode{Kind: Regular, File: &File{size: 10, start: 96, blocks: []uint32{storedBlock}, fragment: noFragment}}})
		},
		"a stored block that is short": func() *Inode {
			return folder(Entry{"a", &Inode{Kind: Regular, File: &File{size: 10, start: 96, blocks: []uint32{9 | storedBlock}, fragment: noFragment}}})
		},
		"no such fragment": func() *Inode {
			return folder(Entry{"a", &Inode{Kind: Regular, File: &File{size: 10, fragment: 7}}})
		},
		"behind the end of a fragment": func() *Inode {
			return folder(Entry{"a", &Inode{Kind: Regular, File: &File{size: 10, fragment: 0, offset: BlockSize - 5}}})
		},
		"more size than blocks": func() *Inode {
			return folder(Entry{"a", &Inode{Kind: Regular, File: &File{size: 1 << 40, start: 96, fragment: noFragment}}})
		},
		"mode": func() *Inode { return folder(Entry{"a", &Inode{Kind: Fifo, Mode: 0o100644}}) },
	} {
		err := check(write(t, 1, func(w *Writer) *Inode {
			add(t, w, words(1, 100))
			return build()
		}))
		if !errors.Is(err, ErrStructure) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// FuzzCheck wants no panic, no endless run, no opinion that depends on anything
// but the bytes, and nothing taken that cannot be read.
func FuzzCheck(f *testing.F) {
	for _, build := range []func(*Writer) *Inode{
		func(*Writer) *Inode { return folder() },
		func(w *Writer) *Inode {
			return folder(Entry{"a", folder(Entry{"f", &Inode{Kind: Regular, File: add(f, w, words(1, 300))}})},
				Entry{"l", &Inode{Kind: Symlink, Target: "a/f"}})
		},
	} {
		raw, err := os.ReadFile(write(f, 1, build))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw[:len(raw)&^7])
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		err := Check(bytes.NewReader(raw), int64(len(raw)), CheckOptions{MaxInodes: 1000, MaxMetadata: 1 << 20, Contents: true, MaxContents: 1 << 20})
		if err != nil {
			if !errors.Is(err, ErrStructure) {
				t.Error(err)
			}
			return
		}
		// What it takes, a reader reads to the end.
		total, err := readAll(t, raw)
		if err != nil {
			t.Errorf("checked, and then: %v", err)
		}
		if total > 1000<<20 {
			t.Errorf("%d bytes of contents", total)
		}
	})
}
