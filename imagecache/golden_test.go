package imagecache

import (
	"archive/tar"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/berth-hpc/berth/imagecache/store"
)

// goldenSum is the SHA-256 of what Stream makes of goldenImage, on every
// machine. It may change with a release of Berth: by a change of the writer, or
// of the zstd library, whose releases compress differently. It must not change
// for any other reason. The tree inside stays the same, so PolicyVersion does,
// too; see docs/decisions.md, "The same bytes".
const goldenSum = "821716fb372af336329d4e92ffd02e84320f2309623f14b0b5f0d128a5e39703"

// goldenImage has all kinds of files, and of each what is hard on a writer.
func goldenImage(t *testing.T) [][]byte {
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
		file("small-zeros", 0o644, strings.Repeat("\x00", 5000)), file("empty", 0o644, ""), file("random", 0o644, random(r, 400_000)),
		hardlink("byte-too", "byte"), symlink("link", noise(1)+"target"), hardlink("link-too", "link"), symlink("far", strings.Repeat("x", 4095)),
		fifo("pipe"), hardlink("pipe-too", "pipe"), dir("nothing", 0o700), file(long, 0o644, "deep"), file("large", 0o644, noise(5<<20)),
		file("\xff\xfe\x01 name", 0o755, "bytes"), device("dev/null", tar.TypeChar), file("suid", 0o6755, "x"), file("none", 0, "secret"),
	}
	for i := range 4000 {
		lower = append(lower, file(fmt.Sprintf("many/%05d-%s", i, strings.Repeat("n", i%40)), 0o644, noise(i%300)))
	}
	upper := []entry{hardlink("many/to-lower", "blocks-and-more"), file("blocks-and-more", 0o600, "now small"), whiteout("many/.wh.00007-nnnnnnn")}
	return [][]byte{tarOf(t, lower...), tarOf(t, upper...)}
}

// TestStreamSameBytes converts one image in all kinds of surroundings.
func TestStreamSameBytes(t *testing.T) {
	r := newTestRegistry(t)
	ref := r.push(t, "golden:1", imageOf(t, goldenImage(t)...))
	memory := "/dev/shm" // another file system than the disk's
	for name, test := range map[string]struct {
		uid int
		top string // where the store is
		env []string
	}{
		"as the caller":       {uid: os.Geteuid()},
		"as an ordinary user": {uid: nobodyID},
		"umask 077":           {uid: nobodyID, env: []string{"BERTH_TEST_UMASK=1"}},
		"one processor":       {uid: nobodyID, env: []string{"GOMAXPROCS=1"}},
		"seven processors":    {uid: nobodyID, env: []string{"GOMAXPROCS=7"}},
		"a busy collector":    {uid: nobodyID, env: []string{"GOMAXPROCS=3", "GOGC=1"}},
		"no preemption":       {uid: nobodyID, env: []string{"GODEBUG=asyncpreemptoff=1"}},
		"time and language":   {uid: nobodyID, env: []string{"TZ=Pacific/Kiritimati", "LC_ALL=tr_TR.UTF-8", "SOURCE_DATE_EPOCH=5"}},
		"in memory":           {uid: nobodyID, top: memory},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if test.top != "" {
				if _, err := os.Stat(test.top); err != nil {
					t.Skip(err)
				}
			}
			h := newHelperIn(t, test.top, test.uid)
			dir := h.pull(t, ref, append(test.env, "BERTH_TEST_CONVERTER=stream")...)
			sum := sumFile(t, filepath.Join(dir, store.RootfsName))
			if got := hex.EncodeToString(sum[:]); got != goldenSum {
				t.Errorf("SHA-256 %s", got)
			}
		})
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
