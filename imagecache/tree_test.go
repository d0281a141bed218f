package imagecache

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/imagecache/squashfs"
)

// makeTree makes a folder with all that a layer can hold, and what it cannot.
func makeTree(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "tree")
	r := rand.New(rand.NewPCG(7, 7))
	noise := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(r.IntN(30))
		}
		return b
	}
	files := map[string][]byte{
		"empty": nil, "byte": []byte("x"), "text": bytes.Repeat([]byte("some words "), 30_000), "block": noise(128 << 10), "more": noise(1<<20 + 17),
		"zeros": make([]byte, 3<<20), "\xff\xfe name": []byte("bytes"), "with\nnewline": nil, strings.Repeat("n", 255): []byte("long"),
		strings.Repeat("deep/", 100) + "f": []byte("deep"), ".w": nil, "wh.x": nil,
	}
	for i := range 3000 {
		files[fmt.Sprintf("many/%05d-%s", i, strings.Repeat("n", i%40))] = noise(i % 300)
	}
	for name, content := range files {
		path := filepath.Join(dir, name)
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		must(t, os.WriteFile(path, content, 0o644))
		must(t, os.Chmod(path, 0o644))
	}
	must(t, os.Symlink(strings.Repeat("x", 4000), filepath.Join(dir, "far")))
	must(t, os.Symlink("/byte", filepath.Join(dir, "link")))
	must(t, os.Link(filepath.Join(dir, "more"), filepath.Join(dir, "a-first")))
	must(t, os.Link(filepath.Join(dir, "more"), filepath.Join(dir, "deep", "z")))
	must(t, unix.Mkfifo(filepath.Join(dir, "pipe"), 0o640))
	must(t, os.Chmod(filepath.Join(dir, "text"), 0o755|os.ModeSetuid))
	must(t, os.Chmod(filepath.Join(dir, "many"), 0o777|os.ModeSticky))
	must(t, os.Chtimes(filepath.Join(dir, "byte"), time.Time{}, time.Unix(1234567890, 987654321)))
	return dir
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func tarTree(t *testing.T, dir string) []byte {
	t.Helper()
	var b bytes.Buffer
	must(t, writeTree(testContext(t), dir, &b))
	return b.Bytes()
}

// writeTree writes a folder as one layer.
func writeTree(ctx context.Context, dir string, w io.Writer) error {
	l := newLayerTar(ctx, w)
	if err := l.tree(dir); err != nil {
		return err
	}
	return l.tw.Close()
}

// mksquashfs makes a squashfs file of a folder.
func mksquashfs(t testing.TB, dir string, options ...string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "x.sqsh")
	args := append([]string{dir, out, "-quiet", "-no-progress", "-processors", "2"}, options...)
	if text, err := exec.CommandContext(t.Context(), "mksquashfs", args...).CombinedOutput(); err != nil {
		t.Fatalf("mksquashfs %q: %v: %s", options, err, text)
	}
	return out
}

func tarSquashfs(ctx context.Context, path string, w io.Writer) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	return TarSquashfs(ctx, f, info.Size(), w)
}

// TestTarSquashfs reads back what mksquashfs writes, with every compressor that
// Linux has.
func TestTarSquashfs(t *testing.T) {
	dir := makeTree(t)
	want := tarTree(t, dir)
	for _, options := range []string{
		"-comp gzip", "-comp gzip -Xstrategy filtered", "-comp lzo", "-comp lzo -noD", "-comp lzo -Xalgorithm lzo1x_1", "-comp xz", "-comp xz -Xbcj x86,arm",
		"-comp lz4", "-comp lz4 -Xhc", "-comp zstd", "-comp zstd -b 1M", "-comp gzip -b 4K", "-comp lzo -b 1M", "-no-fragments",
		"-always-use-fragments", "-noI -noD -noF -noX", "-no-sparse -no-duplicates -nopad", "-all-root -no-exports -no-xattrs",
	} {
		t.Run(options, func(t *testing.T) {
			var got bytes.Buffer
			must(t, tarSquashfs(testContext(t), mksquashfs(t, dir, strings.Fields(options)...), &got))
			sameTar(t, got.Bytes(), want)
		})
	}
}

// TestTarOfOwnSquashfs: an image of a tree has that tree, but for the policy.
func TestTarOfOwnSquashfs(t *testing.T) {
	dir := makeTree(t)
	must(t, os.Chmod(filepath.Join(dir, "text"), 0o755))
	must(t, os.Chmod(filepath.Join(dir, "pipe"), 0o644))
	want := tarTree(t, dir)
	for _, c := range converters {
		var got bytes.Buffer
		must(t, tarSquashfs(testContext(t), convertTars(t, c, want), &got))
		sameTar(t, got.Bytes(), want)
	}
}

// sameTar says which entries of two layers differ.
func sameTar(t *testing.T, got, want []byte) {
	t.Helper()
	if bytes.Equal(got, want) {
		return
	}
	t.Errorf("not the same bytes\n%s", firstDifference(describeTar(t, got), describeTar(t, want)))
}

func describeTar(t *testing.T, raw []byte) string {
	t.Helper()
	var b strings.Builder
	tr := tar.NewReader(bytes.NewReader(raw))
	for {
		h, err := tr.Next()
		if err == io.EOF {
			return b.String()
		}
		must(t, err)
		content, err := io.ReadAll(tr)
		must(t, err)
		fmt.Fprintf(&b, "%.300q %c %o %d:%d %v %.80q %v\n", h.Name, h.Typeflag, h.Mode, h.Uid, h.Gid, h.ModTime, h.Linkname, digestOf(content))
	}
}

// TestTarTree is what a folder becomes.
func TestTarTree(t *testing.T) {
	dir := makeTree(t)
	listener, err := net.Listen("unix", filepath.Join(dir, "socket"))
	must(t, err)
	defer listener.Close()
	if os.Geteuid() == 0 {
		must(t, unix.Mknod(filepath.Join(dir, "null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	}
	raw := tarTree(t, dir)
	text := describeTar(t, raw)
	for _, want := range []string{
		`"./" 5 755 0:0 `, `"byte" 0 644 0:0 2009-02-13 23:31:30`, `"text" 0 4755`, `"many/" 5 1777`, `"pipe" 6 640`,
		`"deep/z" 1 644 0:0`, `"more" 1 644`, `"a-first" 0 644`, `"link" 2 777`, `"\xff\xfe name" 0`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no entry %s", want)
		}
	}
	if strings.Contains(text, `"socket"`) || strings.Contains(text, `"null"`) {
		t.Error("a socket or a device is in the layer")
	}
	t.Run("elsewhere", func(t *testing.T) {
		copied := filepath.Join(t.TempDir(), "copy")
		if out, err := exec.CommandContext(t.Context(), "cp", "-a", dir, copied).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		must(t, os.Symlink(copied, copied+"-link"))
		sameTar(t, tarTree(t, copied+"-link"), raw)
	})
}

// TestTarTreeRefuses: what would be lost in silence is an error.
func TestTarTreeRefuses(t *testing.T) {
	for _, test := range []struct {
		name, says string
		make       func(t *testing.T, dir string)
	}{
		{"whiteout", ".wh.x", func(t *testing.T, dir string) { writeFile(t, filepath.Join(dir, ".wh.x"), nil) }},
		{"unreadable file", "permission denied", func(t *testing.T, dir string) {
			writeFile(t, filepath.Join(dir, "secret"), nil)
			must(t, os.Chmod(filepath.Join(dir, "secret"), 0))
		}},
		{"unreadable folder", "read DIR/secret: permission denied", func(t *testing.T, dir string) { must(t, os.Mkdir(filepath.Join(dir, "secret"), 0)) }},
		{"mount point", "another file system is mounted there", func(t *testing.T, dir string) {
			if os.Geteuid() != 0 {
				t.Skip("only root may mount")
			}
			mnt := filepath.Join(dir, "mnt")
			must(t, os.Mkdir(mnt, 0o755))
			must(t, unix.Mount("x", mnt, "tmpfs", 0, ""))
			t.Cleanup(func() { must(t, unix.Unmount(mnt, 0)) })
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			test.make(t, dir)
			if strings.Contains(test.name, "unreadable") && os.Geteuid() == 0 {
				t.Skip("root reads everything")
			}
			err := writeTree(testContext(t), dir, io.Discard)
			if says := strings.ReplaceAll(test.says, "DIR", dir); err == nil || !strings.Contains(err.Error(), says) {
				t.Errorf("got %v, want %q", err, says)
			}
		})
	}
}

// TestTarTreeOfAChangingFolder changes a file after its folder was read.
func TestTarTreeOfAChangingFolder(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	writeFile(t, secret, []byte("secret"))
	for name, change := range map[string]func(path string) error{
		"shorter": func(path string) error { return os.Truncate(path, 10) },
		"a link":  func(path string) error { return errors.Join(os.Remove(path), os.Symlink(secret, path)) },
		"a pipe":  func(path string) error { return errors.Join(os.Remove(path), unix.Mkfifo(path, 0o600)) },
		"gone":    os.Remove,
		"another file": func(path string) error {
			return errors.Join(os.WriteFile(path+"2", make([]byte, 1<<20), 0o600), os.Rename(path+"2", path))
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "f")
			writeFile(t, path, make([]byte, 1<<20))
			root, err := os.OpenRoot(filepath.Dir(path))
			must(t, err)
			defer root.Close()
			info, err := root.Lstat("f")
			must(t, err)
			must(t, change(path))
			var out bytes.Buffer
			tree := folderTar{layerTar: newLayerTar(t.Context(), &out), root: root, dir: filepath.Dir(path)}
			err = tree.add(entryOf("f", info), tree.opener("f", info))
			if err == nil || bytes.Contains(out.Bytes(), []byte("secret")) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// TestTarTreeOfAShrinkingFile: it shrinks while it is read.
func TestTarTreeOfAShrinkingFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	writeFile(t, path, make([]byte, 4<<20))
	err := writeTree(testContext(t), dir, writerFunc(func(p []byte) (int, error) {
		if len(p) > 1<<10 { // content
			return len(p), os.Truncate(path, 10)
		}
		return len(p), nil
	}))
	if fault.Of(err) != fault.User || !strings.Contains(err.Error(), "changed while it was read") {
		t.Errorf("got %v", err)
	}
}

type writerFunc func(p []byte) (int, error)

// Write implements io.Writer.
func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// TestDamagedSquashfs: whatever is wrong with a file, it is an error of the
// file, or what is read has that shape.
func TestDamagedSquashfs(t *testing.T) {
	dir := t.TempDir()
	for i := range 40 {
		writeFile(t, filepath.Join(dir, fmt.Sprintf("file-%d", i)), bytes.Repeat([]byte{byte(i)}, i*1000))
	}
	for _, comp := range []string{"gzip", "lzo", "lz4", "zstd", "xz"} {
		raw, err := os.ReadFile(mksquashfs(t, dir, "-comp", comp, "-nopad"))
		must(t, err)
		t.Run(comp, func(t *testing.T) {
			t.Run("cut", func(t *testing.T) {
				for _, n := range []int{0, 50, 95, 96, 500, len(raw) - 500} {
					err := TarSquashfs(testContext(t), bytes.NewReader(raw[:n]), int64(n), io.Discard)
					if !errors.Is(err, squashfs.ErrStructure) {
						t.Errorf("%d bytes of %d: %v", n, len(raw), err)
					}
				}
			})
			r := rand.New(rand.NewPCG(1, 1))
			for range 300 {
				bad := bytes.Clone(raw)
				for range 1 + r.IntN(3) {
					bad[r.IntN(len(bad))] ^= byte(1 << r.IntN(8))
				}
				err := TarSquashfs(testContext(t), bytes.NewReader(bad), int64(len(bad)), io.Discard)
				var f *fault.Error
				if err != nil && !errors.Is(err, squashfs.ErrStructure) && !errors.As(err, &f) {
					t.Errorf("%v", err)
				}
			}
		})
	}
}
