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
	"syscall"
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
		"bytes":           {Limits{Bytes: 9}, large, "unpack to more than 9 bytes"},
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
// squashfs format's smaller record can hold. The tar is made while it is read.
func TestLargeFile(t *testing.T) {
	const size = 9 << 30
	for name, format := range map[string]tar.Format{"PAX": tar.FormatPAX, "GNU": tar.FormatGNU} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			out, err := convertStream(t, Stream{}, oneLayer{largeTar(size, format)})
			if err != nil {
				t.Fatal(err)
			}
			checkStructure(t, out)
			if info, err := os.Stat(out); err != nil || info.Size() > 4<<20 {
				t.Errorf("%d bytes, %v", info.Size(), err)
			}
			checkLargeFile(t, out, size)
		})
	}
}

// largeTar has one file of zeros with a word before its middle and one at its
// end.
func largeTar(size int64, format tar.Format) io.Reader {
	var head bytes.Buffer
	// A bytes.Buffer takes everything.
	_ = tar.NewWriter(&head).WriteHeader(&tar.Header{Name: "large", Typeflag: tar.TypeReg, Mode: 0o644, Size: size, Format: format})
	half := size/2 - 5
	return io.MultiReader(&head, io.LimitReader(zeros{}, half), strings.NewReader("half!"), io.LimitReader(zeros{}, size-half-9),
		strings.NewReader("end!"), io.LimitReader(zeros{}, 1024+(512-size%512)%512))
}

// zeros is an endless reader.
type zeros struct{}

// Read implements io.Reader.
func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// checkLargeFile reads the places that hold something, by the kernel if it can,
// and what unsquashfs says of the file.
func checkLargeFile(t *testing.T, image string, size int64) {
	t.Helper()
	listed, err := exec.CommandContext(testContext(t), "unsquashfs", "-lls", image).CombinedOutput()
	if err != nil || !strings.Contains(string(listed), fmt.Sprint(size)) {
		t.Errorf("%s, %v", listed, err)
	}
	if why := kernel.cannot(); why != "" {
		t.Log(why)
		return
	}
	const script = `stat -c %s large; tail -c 5 large | tr '\0' 0; echo; dd if=large iflag=skip_bytes,count_bytes status=none skip=$((SIZE/2-6)) count=7 | tr '\0' 0`
	if got, want := kernel.show(t, image, strings.ReplaceAll(script, "SIZE", fmt.Sprint(size))), fmt.Sprintf("%d\n0end!\n0half!0", size); got != want {
		t.Errorf("got %q, want %q", got, want)
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

// TestManyEntries bounds what 500,000 files cost, in a process of its own.
func TestManyEntries(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	const n, mostMemory = 500_000, 800 << 10 // KiB; some 320 when the collector is not kept waiting
	out := filepath.Join(t.TempDir(), "out.sqfs")
	cmd := exec.CommandContext(testContext(t), "/proc/self/exe")
	cmd.Env = []string{"BERTH_TEST_ENTRIES=" + fmt.Sprint(n), helperEnv + "=" + out}
	if said, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, said)
	}
	used := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	t.Logf("%d KiB, %v of CPU time", used.Maxrss, cmd.ProcessState.UserTime()+cmd.ProcessState.SystemTime())
	if used.Maxrss > mostMemory {
		t.Errorf("%d KiB of memory", used.Maxrss)
	}
	checkStructure(t, out)
	const script = `find . -type f | wc -l; cat d0/e0/file-0 d4/e358/file-123456 d3/e544/file-499999`
	if got, want := best().show(t, out, script), fmt.Sprintf("%d\n%08d%08d%08d", n, 0, 123_456, n-1); got != want {
		t.Errorf("got %q, want %q", got, want)
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

// TestWriteback: the disk is told to begin, with whole pages, and the file is
// what was written.
func TestWriteback(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w := &writeback{File: f}
	const size = 2*writebackStep + 12_345
	if n, err := io.CopyBuffer(struct{ io.Writer }{w}, io.LimitReader(zeros{}, size), make([]byte, 77_777)); n != size || err != nil {
		t.Fatal(n, err)
	}
	if w.begun < writebackStep || w.begun > size || w.begun%4096 != 0 {
		t.Errorf("begun with %d bytes", w.begun)
	}
	if info, err := f.Stat(); err != nil || info.Size() != size {
		t.Errorf("%d bytes, %v", info.Size(), err)
	}
}
