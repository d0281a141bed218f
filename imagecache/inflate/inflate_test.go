package inflate

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	fast "github.com/klauspost/compress/gzip"
)

// contents are plain bytes of all kinds.
func contents() map[string][]byte {
	r := rand.New(rand.NewPCG(1, 2))
	noise := make([]byte, 700_000)
	for i := range noise {
		noise[i] = byte(r.Uint32())
	}
	var words bytes.Buffer
	for words.Len() < 2_000_000 {
		fmt.Fprintf(&words, "%x ", r.IntN(5000))
	}
	skewed := make([]byte, 500_000) // gives codes of every length
	for i := range skewed {
		skewed[i] = byte(min(r.ExpFloat64()*12, 255))
	}
	far := bytes.Repeat(noise[:window-1], 9) // matches from as far as they come
	all := map[string][]byte{
		"empty": nil, "byte": {7}, "noise": noise, "words": words.Bytes(), "zeros": make([]byte, 3_000_000), "skewed": skewed, "far": far,
	}
	for n := range 9 {
		all[fmt.Sprintf("period %d", n+1)] = bytes.Repeat(noise[:n+1], 100_000)
	}
	return all
}

func compress(t testing.TB, level int, plain ...[]byte) []byte {
	t.Helper()
	var b bytes.Buffer
	for _, p := range plain {
		w, err := gzip.NewWriterLevel(&b, level)
		if err == nil {
			_, err = w.Write(p)
			err = errors.Join(err, w.Close())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

func read(r io.Reader) ([]byte, error) {
	z := NewReader(r, nil)
	defer z.Close()
	return io.ReadAll(z)
}

// TestContents reads what Go's own library writes, given at once, byte by byte,
// and in halves.
func TestContents(t *testing.T) {
	for name, plain := range contents() {
		for _, level := range []int{gzip.NoCompression, gzip.HuffmanOnly, 1, 6, 9} {
			packed := compress(t, level, plain)
			for how, r := range map[string]io.Reader{
				"whole": bytes.NewReader(packed), "bytes": iotest.OneByteReader(bytes.NewReader(packed)),
				"halves": iotest.HalfReader(bytes.NewReader(packed)), "early end": iotest.DataErrReader(bytes.NewReader(packed)),
			} {
				if got, err := read(r); err != nil || !bytes.Equal(got, plain) {
					t.Errorf("%s, level %d, %s: %d of %d bytes, %v", name, level, how, len(got), len(plain), err)
				}
			}
		}
	}
}

func TestSeveralMembers(t *testing.T) {
	all := contents()
	packed := compress(t, 6, all["words"], nil, all["noise"], all["period 3"])
	want := bytes.Join([][]byte{all["words"], all["noise"], all["period 3"]}, nil)
	if got, err := read(bytes.NewReader(packed)); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d of %d bytes, %v", len(got), len(want), err)
	}
	if _, err := read(bytes.NewReader(append(packed, 0))); err == nil {
		t.Error("something may follow the last member")
	}
}

// TestHeader has every optional part of a header.
func TestHeader(t *testing.T) {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	w.Name, w.Comment, w.Extra = "name", "comment", []byte("extra")
	if _, err := w.Write([]byte("x")); err != nil || w.Close() != nil {
		t.Fatal(err)
	}
	if got, err := read(&b); err != nil || string(got) != "x" {
		t.Errorf("%q, %v", got, err)
	}
	for _, long := range []int{511, 512} {
		packed := compress(t, 6, []byte("x"))
		packed[3] |= flagName
		named := append(append(bytes.Clone(packed[:10]), strings.Repeat("n", long)+"\x00"...), packed[10:]...)
		if _, err := read(bytes.NewReader(named)); (err == nil) != (long < 512) {
			t.Errorf("a name of %d: %v", long, err)
		}
	}
}

// TestDamage changes and cuts streams everywhere. The standard library says
// what is an error.
func TestDamage(t *testing.T) {
	all := contents()
	for name, packed := range map[string][]byte{
		"words": compress(t, 6, all["words"][:4_000]), "noise": compress(t, 6, all["noise"][:300]), "zeros": compress(t, 9, all["zeros"][:9000]),
		"fixed": compress(t, 6, []byte("ab")), "members": compress(t, 6, []byte("ab"), []byte("cd")),
	} {
		for i := range packed {
			same(t, fmt.Sprintf("%s, cut to %d", name, i), packed[:i])
			for bit := range 8 {
				bad := bytes.Clone(packed)
				bad[i] ^= 1 << bit
				if bit == i%8 || i < 60 || len(packed) < 300 {
					same(t, fmt.Sprintf("%s, bit %d of byte %d", name, bit, i), bad)
				}
			}
		}
	}
}

// same wants what compress/gzip makes of packed.
func same(t *testing.T, what string, packed []byte) {
	t.Helper()
	var want []byte
	std, wantErr := gzip.NewReader(bytes.NewReader(packed))
	if wantErr == nil {
		want, wantErr = io.ReadAll(std)
	}
	got, err := read(bytes.NewReader(packed))
	if (err == nil) != (wantErr == nil) || err == nil && !bytes.Equal(got, want) {
		t.Errorf("%s: %d bytes, %v; compress/gzip: %d, %v", what, len(got), err, len(want), wantErr)
	}
}

// TestErrorsOfTheInput come out as they are, and explain may change them.
func TestErrorsOfTheInput(t *testing.T) {
	broken, other := errors.New("broken"), errors.New("other")
	packed := compress(t, 6, contents()["words"])
	for _, at := range []int{0, 5, 1000, len(packed) - 3} {
		r := io.MultiReader(bytes.NewReader(packed[:at]), iotest.ErrReader(broken))
		if _, err := read(r); !errors.Is(err, broken) {
			t.Errorf("after %d bytes: %v", at, err)
		}
	}
	z := NewReader(strings.NewReader("\x1f\x8bnot gzip"), func(err error) error { return errors.Join(err, other) })
	if _, err := io.ReadAll(z); !errors.Is(err, other) || !errors.Is(err, errHeader) {
		t.Errorf("explained: %v", err)
	}
}

// TestCloseEndsTheGoroutine: once it is closed, the input is read once more at
// most, and the goroutine lets go of it.
func TestCloseEndsTheGoroutine(t *testing.T) {
	in := &watched{Reader: bytes.NewReader(compress(t, 1, contents()["noise"], contents()["noise"], contents()["noise"]))}
	gone := make(chan struct{})
	runtime.AddCleanup(in, func(gone chan struct{}) { close(gone) }, gone)
	z := NewReader(in, nil)
	if _, err := io.ReadFull(z, make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	in = nil //nolint:ineffassign,wastedassign // what only z may hold then
	z.Close()
	z.Close()
	last := time.After(20 * time.Second)
	for {
		runtime.GC()
		select {
		case <-gone:
			return
		case <-last:
			t.Fatal("it still has its input")
		default:
			runtime.Gosched()
		}
	}
}

type watched struct{ io.Reader }

// FuzzAgainstStandard compares with compress/gzip.
func FuzzAgainstStandard(f *testing.F) {
	for _, plain := range []string{"", "a", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaab", "the quick brown fox jumps over the quick brown dog"} {
		for _, level := range []int{0, 1, 9, gzip.HuffmanOnly} {
			f.Add(compress(f, level, []byte(plain), []byte(plain)))
		}
	}
	f.Fuzz(func(t *testing.T, packed []byte) {
		same(t, "fuzz", packed)
		// Bytes that are no gzip as the content of one, so that the sums are
		// right more often than by chance.
		same(t, "fuzz", compress(t, 1, packed))
	})
}

func BenchmarkReader(b *testing.B) {
	packed := compress(b, 6, contents()["words"])
	for name, open := range map[string]func(io.Reader) (io.Reader, error){
		"inflate":   func(r io.Reader) (io.Reader, error) { return NewReader(r, nil), nil },
		"klauspost": func(r io.Reader) (io.Reader, error) { return fast.NewReader(r) },
		"standard":  func(r io.Reader) (io.Reader, error) { return gzip.NewReader(r) },
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				r, err := open(bytes.NewReader(packed))
				if err != nil {
					b.Fatal(err)
				}
				n, err := io.Copy(io.Discard, r)
				if err != nil {
					b.Fatal(err)
				}
				b.SetBytes(n)
			}
		})
	}
}
