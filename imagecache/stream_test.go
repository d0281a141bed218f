package imagecache

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/berth-hpc/berth/fault"
)

// tarLayers is a LayerSource of tars in memory.
type tarLayers [][]byte

// Len implements LayerSource.
func (l tarLayers) Len() int { return len(l) }

// Open implements LayerSource.
func (l tarLayers) Open(_ context.Context, i int) (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(l[i])), nil
}

// oneLayer is a LayerSource of one stream.
type oneLayer struct{ io.Reader }

// Len implements LayerSource.
func (oneLayer) Len() int { return 1 }

// Open implements LayerSource.
func (l oneLayer) Open(context.Context, int) (io.ReadCloser, error) {
	return io.NopCloser(l.Reader), nil
}

func convertStream(t testing.TB, s Stream, layers LayerSource) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	defer cancel()
	out := filepath.Join(t.TempDir(), "out.sqfs")
	return out, s.Convert(ctx, layers, t.TempDir(), out, nil)
}

func TestStreamLimits(t *testing.T) {
	many := tarLayers{tarOf(t, file("a/b/c", 0o644, ""), file("d", 0o644, ""))}
	large := tarLayers{tarOf(t, file("a", 0o644, "12345")), tarOf(t, file("a", 0o644, "12345"))}
	for name, test := range map[string]struct {
		limits Limits
		layers LayerSource
		cause  string
	}{
		"entries":         {Limits{Entries: 3}, many, "more than 3 files"},
		"enough entries":  {Limits{Entries: 4}, many, ""},
		"bytes":           {Limits{Bytes: 9}, large, "more than 9 bytes"},
		"enough bytes":    {Limits{Bytes: 10}, large, ""},
		"holes are bytes": {Limits{Bytes: 1 << 30}, oneLayer{sparseTar(t, 1<<40)}, "more than 1073741824 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := convertStream(t, Stream{Limits: test.limits}, test.layers)
			if test.cause == "" && err == nil {
				return
			}
			if err == nil || test.cause == "" || !strings.Contains(err.Error(), test.cause) || fault.Of(err) != fault.User {
				t.Errorf("got %v", err)
			}
		})
	}
}

// sparseTar is a tar with one file of size zeros, stored as a hole.
func sparseTar(t testing.TB, size int64) io.Reader {
	t.Helper()
	dir := t.TempDir()
	f, err := os.Create(filepath.Join(dir, "sparse"))
	if err == nil {
		_, err = f.WriteAt([]byte("end"), size-3)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	raw, err := exec.Command("tar", "--format=gnu", "-S", "-C", dir, "-c", "sparse").Output()
	if err != nil || len(raw) > 1<<18 {
		t.Skipf("this disk does not tell tar where holes are: %v", err)
	}
	return bytes.NewReader(raw)
}

// TestLargeFile has more than 8 GB, which neither tar's octal size nor the
// squashfs format's smaller record can hold.
func TestLargeFile(t *testing.T) {
	const size = 9 << 30
	out, err := convertStream(t, Stream{}, oneLayer{sparseTar(t, size)})
	if err != nil {
		t.Fatal(err)
	}
	checkStructure(t, out)
	listed, err := exec.CommandContext(testContext(t), "unsquashfs", "-lls", out).CombinedOutput()
	if err != nil || !strings.Contains(string(listed), fmt.Sprint(int64(size))) {
		t.Errorf("%s, %v", listed, err)
	}
	info, err := os.Stat(out)
	if err != nil || info.Size() > 1<<20 {
		t.Errorf("%d bytes, %v", info.Size(), err)
	}
}

func entryName(i int) string { return fmt.Sprintf("d%d/e%d/file-%d", i%7, i%1009, i) }

// manyEntries is a tar of n small files, made while it is read.
func manyEntries(n int) io.Reader {
	r, w := io.Pipe()
	go func() {
		tw := tar.NewWriter(w)
		var err error
		for i := 0; i < n && err == nil; i++ {
			err = tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: entryName(i), Mode: 0o644, Size: 8})
			if err == nil {
				_, err = fmt.Fprintf(tw, "%08d", i)
			}
		}
		w.CloseWithError(errors.Join(err, tw.Close()))
	}()
	return r
}

func TestManyEntries(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	const n = 500_000
	out, err := convertStream(t, Stream{}, oneLayer{manyEntries(n)})
	if err != nil {
		t.Fatal(err)
	}
	checkStructure(t, out)
	for _, i := range []int{0, 123_456, n - 1} {
		said, err := exec.CommandContext(testContext(t), "unsquashfs", "-cat", out, entryName(i)).CombinedOutput()
		if err != nil || string(said) != fmt.Sprintf("%08d", i) {
			t.Errorf("%s: %s, %v", entryName(i), said, err)
		}
	}
}

// TestStreamErrors: what goes wrong while a layer is read comes out as it
// is, and nothing hangs.
func TestStreamErrors(t *testing.T) {
	whole := tarOf(t, file("a", 0o644, strings.Repeat("x", 1<<20)))
	stopped := errors.New("stopped")
	for name, test := range map[string]struct {
		rest func(cancel context.CancelCauseFunc) error // what comes after the first half
		want error
	}{
		"cut":       {func(context.CancelCauseFunc) error { return io.EOF }, io.ErrUnexpectedEOF},
		"cancelled": {func(cancel context.CancelCauseFunc) error { cancel(stopped); return nil }, stopped},
	} {
		ctx, cancel := context.WithCancelCause(testContext(t))
		half := io.MultiReader(bytes.NewReader(whole[:1<<19]), readerFunc(func([]byte) (int, error) { return 0, test.rest(cancel) }))
		err := (Stream{}).Convert(ctx, oneLayer{half}, "", filepath.Join(t.TempDir(), "out"), nil)
		if !errors.Is(err, test.want) {
			t.Errorf("%s: got %v", name, err)
		}
		cancel(nil)
	}
}

type readerFunc func([]byte) (int, error)

// Read implements io.Reader.
func (f readerFunc) Read(p []byte) (int, error) { return f(p) }
