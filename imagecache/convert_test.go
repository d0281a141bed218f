package imagecache

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/berth-hpc/berth/fault"
)

// TestConvertersRefuse has entries that cannot be, or that would reach out of
// the image. Every converter says so, and blames the image.
func TestConvertersRefuse(t *testing.T) {
	for name, entries := range map[string][]entry{
		"whiteout of its own folder":     {dir("d", 0o755), whiteout("d/.wh..")},
		"whiteout of the folder above":   {whiteout(".wh...")},
		"hard link to nothing":           {hardlink("a", "b")},
		"hard link to itself":            {file("a", 0o644, ""), hardlink("a", "a")},
		"hard link to a folder":          {dir("d", 0o755), hardlink("a", "d")},
		"hard link to the root":          {hardlink("a", "../..")},
		"hard link through a file":       {file("f", 0o644, ""), hardlink("a", "f/b")},
		"symbolic links in a circle":     {symlink("a", "b"), symlink("b", "a"), file("a/f", 0o644, "")},
		"name too long":                  {file(strings.Repeat("n", 256), 0o644, "")},
		"name of a folder too long":      {file(strings.Repeat("n", 256)+"/f", 0o644, "")},
		"target too long":                {symlink("a", strings.Repeat("t", 4096))},
		"path too long":                  {file(strings.Repeat("folder/", 600)+"f", 0o644, "")},
		"something else as root":         {file("../.", 0o644, "")},
		"an unknown type":                {device("a", 'Z')},
		"file in the place of the root":  {symlink("/", "elsewhere")},
		"path too long by symbolic link": {symlink("a", strings.Repeat("b/", 2000)), file("a/"+strings.Repeat("c/", 100)+"f", 0o644, "")},
	} {
		for _, c := range converters {
			t.Run(c.Name()+"/"+name, func(t *testing.T) {
				work := filepath.Join(t.TempDir(), "inner")
				out := filepath.Join(t.TempDir(), "out")
				if err := os.Mkdir(work, 0o700); err != nil {
					t.Fatal(err)
				}
				err := c.Convert(testContext(t), tarLayers{tarOf(t, entries...)}, work, out, nil)
				if err == nil {
					t.Fatal("it was converted")
				}
				if ours := isLocal(err); !ours && fault.Of(err) != fault.User {
					t.Errorf("blame %v: %v", fault.Of(err), err)
				}
			})
		}
	}
}

// BenchmarkConvert converts 20,000 small and 40 large files.
func BenchmarkConvert(b *testing.B) {
	raw := benchmarkLayer(b)
	for _, c := range converters {
		b.Run(c.Name(), func(b *testing.B) {
			b.SetBytes(int64(len(raw)))
			for b.Loop() {
				work, out := b.TempDir(), filepath.Join(b.TempDir(), "out")
				if err := c.Convert(b.Context(), tarLayers{raw}, work, out, nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func benchmarkLayer(b *testing.B) []byte {
	b.Helper()
	r := rand.New(rand.NewPCG(1, 2))
	text := func(n int) string {
		var s strings.Builder
		for s.Len() < n {
			fmt.Fprintf(&s, "%x ", r.IntN(5000))
		}
		return s.String()
	}
	var entries []entry
	for i := range 20_000 {
		entries = append(entries, file(fmt.Sprintf("lib/%d/module-%d.py", i%300, i), 0o644, text(r.IntN(8000))))
	}
	for i := range 40 {
		entries = append(entries, file(fmt.Sprintf("lib/lib%d.so", i), 0o755, text(2<<20)))
	}
	return tarOf(b, entries...)
}
