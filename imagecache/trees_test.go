package imagecache

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/berth-hpc/berth/imagecache/squashfs"
	"github.com/berth-hpc/berth/testdata/images"
)

// describeScript prints all that can be seen of the folder it runs in: every
// name with what stat says of it, then the files' hashes, then the names of
// attributes, each record ended by a zero byte.
const describeScript = `set -eu
find . -printf '%P\0%y %m %U %G %n %s %i %T@ %l\0'
printf '=\0'
find . -type f -print0 | xargs -0 -r sha256sum -z`

// A reader shows a squashfs file, $1, in the folder $2 and runs $3 there.
// Mounts end with the process: it has a mount namespace of its own.
type reader struct {
	name, need string
	root       bool // it mounts
	numbers    bool // it shows hard links as such, by their inode's number
	script     string
}

var (
	kernel     = reader{"kernel", "mount", true, true, `mount -t squashfs -o loop,ro "$1" "$2"; (cd "$2"; sh -c "$3"); umount "$2"`}
	unsquashfs = reader{"unsquashfs", "unsquashfs", false, true, `unsquashfs -no-progress -quiet -d "$2/x" "$1" >&2; cd "$2/x"; sh -c "$3"`}
	readers    = []reader{
		kernel, unsquashfs,
		{"squashfuse", "squashfuse", true, false, `squashfuse "$1" "$2"; (cd "$2"; sh -c "$3"); umount "$2"`},
		{"squashfuse_ll", "squashfuse_ll", true, true, `squashfuse_ll "$1" "$2"; (cd "$2"; sh -c "$3"); umount "$2"`},
	}
)

// cannot says why a reader cannot be used here, or "".
func (r reader) cannot() string {
	if r.root && os.Geteuid() != 0 {
		return "only root may mount"
	}
	if _, err := exec.LookPath(r.need); err != nil {
		return err.Error()
	}
	return ""
}

// best is the reader that the oracle's file is read with.
func best() reader {
	if kernel.cannot() == "" {
		return kernel
	}
	return unsquashfs
}

// tree returns what the reader sees of a file: by path, all that there is to
// say about what has it.
func (r reader) tree(t *testing.T, squashfs string) map[string]string {
	t.Helper()
	return parseTree(t, r.show(t, squashfs, describeScript))
}

// show returns what a script prints in the folder that the reader shows.
func (r reader) show(t *testing.T, squashfs, script string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	args := []string{"sh", "-euc", "umask 0; " + r.script, "sh", squashfs, t.TempDir(), script}
	if r.root {
		args = append([]string{"unshare", "-m", "--propagation", "private"}, args...)
	}
	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v: %s", r.name, err, stderr.String())
	}
	return string(out)
}

// sameAs stands before the first name of what has several.
const sameAs = ", the same as "

// parseTree makes sense of what describeScript prints. What has several names
// is told by the first of them. Not compared: the size and the links of
// folders, which readers count differently, and whether symbolic links are one,
// which mksquashfs forgets.
func parseTree(t *testing.T, out string) map[string]string {
	t.Helper()
	stats, sums, ok := strings.Cut(out, "=\x00")
	records := strings.Split(strings.TrimSuffix(stats, "\x00"), "\x00")
	if !ok || len(records)%2 != 0 {
		t.Fatalf("%d records: %.300q", len(records), out)
	}
	found := map[string][]string{}
	first := map[string]string{}
	for i := 0; i < len(records); i += 2 {
		f := strings.SplitN(records[i+1], " ", 9)
		found[records[i]] = f
		if old, ok := first[f[6]]; !ok || records[i] < old {
			first[f[6]] = records[i]
		}
	}
	tree := map[string]string{}
	for name, f := range found {
		kind, mode, links, size := f[0], f[1]+" "+f[2]+":"+f[3], f[4], f[5]
		switch kind {
		case "d":
			tree[name] = fmt.Sprint("folder ", mode, " ", f[7])
		case "l":
			tree[name] = fmt.Sprint("link ", mode, " ", f[7], " ", f[8])
		default:
			tree[name] = fmt.Sprint(kind, " ", mode, " ", f[7], " size ", size, " links ", links, sameAs, first[f[6]])
		}
	}
	for sum := range strings.SplitSeq(strings.TrimSuffix(sums, "\x00"), "\x00") {
		if hash, name, ok := strings.Cut(sum, "  ./"); ok {
			tree[name] = hash + " " + tree[name]
		}
	}
	return tree
}

// shown leaves out of what there is to say what the reader does not show.
func (r reader) shown(what string) string {
	if at := strings.LastIndex(what, sameAs); at >= 0 && !r.numbers {
		return what[:at]
	}
	return what
}

// sameTrees compares what the reader sees with what has to be there.
func sameTrees(t *testing.T, r reader, got, want map[string]string) {
	t.Helper()
	var wrong []string
	for name := range maps.Keys(want) {
		if r.shown(got[name]) != r.shown(want[name]) {
			wrong = append(wrong, name)
		}
	}
	for name := range maps.Keys(got) {
		if _, ok := want[name]; !ok {
			wrong = append(wrong, name)
		}
	}
	slices.Sort(wrong)
	for _, name := range wrong[:min(len(wrong), 5)] {
		t.Errorf("%s, %.200q:\n got %.300q\nwant %.300q", r.name, name, got[name], want[name])
	}
	if len(wrong) > 5 {
		t.Errorf("%s: %d more names differ", r.name, len(wrong)-5)
	}
}

// suite converts layers with both converters and wants equal trees, whoever
// reads the streaming one's.
func suite(t *testing.T, rs []reader, convert func(Converter) string) {
	t.Helper()
	want := best().tree(t, convert(Umoci{}))
	image := convert(Stream{})
	checkStructure(t, image)
	for _, r := range rs {
		if why := r.cannot(); why != "" {
			t.Logf("%s: %s", r.name, why)
			continue
		}
		sameTrees(t, r, r.tree(t, image), want)
	}
}

func TestConvertersAgree(t *testing.T) {
	for _, set := range layerSets() {
		t.Run(set.name, func(t *testing.T) {
			t.Parallel()
			var tars [][]byte
			for _, l := range set.layers {
				tars = append(tars, tarOf(t, l...))
			}
			suite(t, readers, func(c Converter) string { return convertTars(t, c, tars...) })
		})
	}
	for name, raw := range programTars(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			suite(t, readers, func(c Converter) string { return convertTars(t, c, raw) })
		})
	}
}

// largeImages take longer than the rest of the tests together; they are
// converted where something else has built them.
var largeImages = []string{"science", "jupyter"}

// TestConvertersAgreeOnImages has all images of the other tests.
func TestConvertersAgreeOnImages(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a minute")
	}
	for _, name := range images.Names() {
		t.Run(name, func(t *testing.T) {
			b := images.Builder{Cache: images.CacheDir()}
			if ready, err := b.Ready(name); slices.Contains(largeImages, name) && (!ready || err != nil) {
				t.Skip("it is large and nobody has built it here")
			}
			ref := mustParse(t, "oci:"+images.Layout(t, name)+":"+images.Tag)
			suite(t, []reader{best()}, func(c Converter) string { return convertImage(t, c, ref) })
		})
	}
}

// convertImage returns the squashfs file of an image, gone with the test.
func convertImage(t *testing.T, c Converter, ref Reference) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	im, err := Pull(ctx, openStore(t), ref, FetchOptions{Converter: c})
	if err != nil {
		t.Fatal(err)
	}
	return im.Rootfs()
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
	if err == nil {
		err = squashfs.Check(f, info.Size(), squashfs.CheckOptions{})
	}
	if err != nil {
		t.Error(err)
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
