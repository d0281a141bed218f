package squashfs

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// smallFiles returns squashfs files of one small tree, one for each compressor.
func smallFiles(t testing.TB) map[string][]byte {
	t.Helper()
	tree := t.TempDir()
	for name, text := range map[string]string{"a": "some text", "b": strings.Repeat("some text ", 2000), "zeros": strings.Repeat("\x00", 10000)} {
		if err := os.WriteFile(filepath.Join(tree, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Symlink("a", filepath.Join(tree, "link")), os.Mkdir(filepath.Join(tree, "d"), 0o755)); err != nil {
		t.Fatal(err)
	}
	made := map[string][]byte{}
	for _, comp := range []string{"gzip", "lzo", "xz", "lz4", "zstd"} {
		out := filepath.Join(t.TempDir(), comp)
		args := []string{tree, out, "-comp", comp, "-b", "4K", "-nopad", "-quiet", "-no-progress"}
		if text, err := exec.CommandContext(t.Context(), "mksquashfs", args...).CombinedOutput(); err != nil {
			t.Skipf("mksquashfs: %v: %s", err, text)
		}
		raw, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		made[comp] = raw
	}
	return made
}

// readAll reads all that a file has and returns how much that is.
func readAll(t testing.TB, raw []byte) (int64, error) {
	r, err := NewReader(bytes.NewReader(raw), int64(len(raw)))
	if err != nil {
		return 0, err
	}
	var total int64
	err = r.Walk(t.Context(), func(path string, n *Node) error {
		if n.Kind != Regular || n.Size > 1<<20 {
			return nil
		}
		got, err := io.Copy(io.Discard, r.Content(n))
		if err == nil && got != n.Size {
			t.Errorf("%q has %d bytes, not %d", path, got, n.Size)
		}
		total += got
		return err
	})
	return total, err
}

func TestReadFile(t *testing.T) {
	for comp, raw := range smallFiles(t) {
		if total, err := readAll(t, raw); err != nil || total != 9+20000+10000 {
			t.Errorf("%s: %d bytes, %v", comp, total, err)
		}
		r, err := NewReader(bytes.NewReader(raw), int64(len(raw)))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := r.ReadFile("a"); err != nil || string(got) != "some text" {
			t.Errorf("%s: %q, %v", comp, got, err)
		}
		for _, name := range []string{"c", "a/b", "link", "d", "", "d/x"} {
			if got, err := r.ReadFile(name); err == nil {
				t.Errorf("%s: %q: %q", comp, name, got)
			}
		}
	}
}

// TestReadLoops: directories that lead to the root again, or that are in two
// places, which doubles the tree at each level, end the walk.
func TestReadLoops(t *testing.T) {
	tree := t.TempDir()
	if err := errors.Join(os.MkdirAll(filepath.Join(tree, "a", "sub"), 0o755), os.Mkdir(filepath.Join(tree, "b"), 0o755)); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "x")
	if text, err := exec.CommandContext(t.Context(), "mksquashfs", tree, out, "-noI", "-quiet", "-no-progress").CombinedOutput(); err != nil {
		t.Skipf("mksquashfs: %v: %s", err, text)
	}
	raw, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	offset := func(raw []byte, name byte) []byte { // of the inode, in the entry of that name
		entry := bytes.LastIndex(raw, []byte{typeDir, 0, 0, 0, name})
		if entry < 0 {
			t.Fatalf("no entry for %c", name)
		}
		return raw[entry-4 : entry-2]
	}
	for name, change := range map[string]func(raw []byte){
		"loop":       func(raw []byte) { copy(offset(raw, 'b'), raw[32:34]) }, // the root's, from the superblock
		"two places": func(raw []byte) { copy(offset(raw, 'b'), offset(raw, 'a')) },
	} {
		bad := bytes.Clone(raw)
		change(bad)
		if _, err := readAll(t, bad); !errors.Is(err, ErrStructure) || !strings.Contains(err.Error(), "in two places") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzReader: whatever a file holds, reading it ends, with an error that says
// that the file is to blame or with what it says it has.
func FuzzReader(f *testing.F) {
	for _, raw := range smallFiles(f) {
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		if _, err := readAll(t, raw); err != nil && !errors.Is(err, ErrStructure) {
			t.Errorf("%v", err)
		}
	})
}

// FuzzLZO: no input writes or reads beyond what it may.
func FuzzLZO(f *testing.F) {
	f.Add([]byte{0x15, 'a', 'b', 'c', 'd', 0x11, 0, 0})
	f.Add([]byte{0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, packed []byte) {
		const limit = 8192
		if out, err := unpackLZO(packed, limit); err == nil && len(out) > limit {
			t.Errorf("%d bytes", len(out))
		}
	})
}
