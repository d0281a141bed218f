package imagecache

import (
	"archive/tar"
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/berth-hpc/berth/imagecache/squashfs"
)

// describeScript prints all that can be seen of the folder it runs in, but for
// the names that a symbolic link has: mksquashfs makes links of their own of
// them.
const describeScript = `set -eu
find . -type d -printf '%P/ %m %T@\n' -o -type l -printf '%P l %m %s %T@ %l\n' -o -printf '%P %y %m %s %n %T@ %l\n' | LC_ALL=C sort
find . -type f -print0 | LC_ALL=C sort -z | xargs -0 -r sha256sum`

// readers show a squashfs file, $1, in the folder $2 and run $3 there.
// Mounts end with the process: it has a mount namespace of its own.
var readers = []struct{ name, need, script string }{
	{"kernel", "mount", `mount -t squashfs -o loop,ro "$1" "$2"; (cd "$2"; sh -c "$3"); umount "$2"`},
	{"unsquashfs", "unsquashfs", `unsquashfs -no-progress -quiet -d "$2/x" "$1" >&2; cd "$2/x"; sh -c "$3"`},
	{"squashfuse", "squashfuse", `squashfuse "$1" "$2"; (cd "$2"; sh -c "$3"); umount "$2"`},
	{"squashfuse_ll", "squashfuse_ll", `squashfuse_ll "$1" "$2"; (cd "$2"; sh -c "$3"); umount "$2"`},
}

// seenBy returns what the reader sees of the file.
func seenBy(t *testing.T, script, squashfs string) string {
	t.Helper()
	var stderr bytes.Buffer
	cmd := exec.CommandContext(testContext(t), "unshare", "-m", "--propagation", "private",
		"sh", "-euc", "umask 0; "+script, "sh", squashfs, t.TempDir(), describeScript)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, stderr.String())
	}
	return string(out)
}

// readBackImage has all kinds of files, and of each what is hard on a reader.
func readBackImage(t *testing.T) [][]byte {
	t.Helper()
	r := rand.New(rand.NewPCG(1, 2))
	noise := func(n int) string {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(r.IntN(20))
		}
		return string(b)
	}
	long := strings.Repeat("long/", 400) + strings.Repeat("n", 255)
	lower := []entry{
		file("one-block", 0o644, noise(128<<10)), file("blocks-and-more", 0o644, noise(300_001)), file("byte", 0o600, "x"),
		file("hole", 0o644, noise(1000)+strings.Repeat("\x00", 1<<20)+"end"), file("zeros", 0o644, strings.Repeat("\x00", 1<<19)),
		file("small-zeros", 0o644, strings.Repeat("\x00", 5000)), file("empty", 0o644, ""),
		hardlink("byte-too", "byte"), symlink("link", noise(1)+"target"), hardlink("link-too", "link"), symlink("far", strings.Repeat("x", 4095)),
		fifo("pipe"), hardlink("pipe-too", "pipe"), dir("nothing", 0o700), file(long, 0o644, "deep"),
		file("\xff\xfe\x01 name", 0o755, "bytes"), device("dev/null", tar.TypeChar), file("suid", 0o6755, "x"), file("none", 0, "secret"),
	}
	for i := range 4000 {
		lower = append(lower, file(fmt.Sprintf("many/%05d-%s", i, strings.Repeat("n", i%40)), 0o644, noise(i%300)))
	}
	// GNU's way of writing long names.
	gnu := file("gnu/"+strings.Repeat("g", 200), 0o644, "gnu")
	gnu.Format = tar.FormatGNU
	upper := []entry{gnu, hardlink("many/to-lower", "blocks-and-more"), file("blocks-and-more", 0o600, "now small"), whiteout("many/.wh.00007-nnnnnnn")}
	return [][]byte{tarOf(t, lower...), tarOf(t, upper...)}
}

func TestReadBack(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root may mount")
	}
	layers := readBackImage(t)
	want := seenBy(t, readers[0].script, convertTars(t, Umoci{}, layers...))
	image := convertTars(t, Stream{}, layers...)
	for _, r := range readers {
		t.Run(r.name, func(t *testing.T) {
			if _, err := exec.LookPath(r.need); err != nil {
				t.Skip(err)
			}
			if got := seenBy(t, r.script, image); got != want {
				t.Errorf("not what umoci and mksquashfs give:\n%s", firstDifference(got, want))
			}
		})
	}
}

// firstDifference shows the first lines that differ.
func firstDifference(a, b string) string {
	x, y := strings.Split(a, "\n"), strings.Split(b, "\n")
	for i := range min(len(x), len(y)) {
		if x[i] != y[i] {
			return fmt.Sprintf("%.300q\n%.300q", x[i], y[i])
		}
	}
	return fmt.Sprintf("%d lines, %d lines", len(x), len(y))
}

// checkStructure holds the file to the rules of the format.
func checkStructure(t testing.TB, path string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if err := squashfs.Check(f, info.Size(), squashfs.CheckOptions{}); err != nil {
		t.Error(err)
	}
}

// TestStreamSameBytes converts on one and on four processors.
func TestStreamSameBytes(t *testing.T) {
	layers := readBackImage(t)
	want := sumFile(t, convertTars(t, Stream{}, layers...))
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	for _, n := range []int{1, 4} {
		runtime.GOMAXPROCS(n)
		if got := sumFile(t, convertTars(t, Stream{}, layers...)); got != want {
			t.Errorf("other bytes on %d processors", n)
		}
	}
}

// TestStreamLeavesNothing: only the file that was asked for appears.
func TestStreamLeavesNothing(t *testing.T) {
	work, out := t.TempDir(), filepath.Join(t.TempDir(), "out")
	err := (Stream{}).Convert(testContext(t), tarLayers(hardImage(t)), work, out, nil)
	if entries, _ := os.ReadDir(work); err != nil || len(entries) > 0 {
		t.Errorf("left %v, %v", entries, err)
	}
}
