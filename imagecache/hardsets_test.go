package imagecache

import (
	"archive/tar"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/berth-hpc/berth/imagecache/squashfs"
)

// A layerSet is the layers of an image that is hard to get right. The suite in
// trees_test.go runs over all of them.
type layerSet struct {
	name   string
	layers [][]entry
}

// layerSets returns those of treeCases, and what is too large to have its tree
// written down.
func layerSets() []layerSet {
	var sets []layerSet
	for _, c := range treeCases {
		sets = append(sets, layerSet{c.name, c.layers})
	}
	sets = append(sets, hideSets...)
	sets = append(sets, linkSets...)
	sets = append(sets, nameSets()...)
	return append(sets, contentSets()...)
}

// hideSets are about what one layer takes away from another.
var hideSets = []layerSet{
	{"whiteout of a folder and the folder again", [][]entry{
		{dir("d", 0o700), file("d/old", 0o644, "x"), dir("d/sub", 0o755), file("d/sub/f", 0o644, "y")},
		{whiteout(".wh.d"), dir("d", 0o755), file("d/new", 0o644, "z")},
		{file("d/sub/g", 0o644, "g"), whiteout("d/.wh.sub")},
	}},
	{"opaque folders within opaque folders", [][]entry{
		{file("a/b/c/f", 0o644, "1"), file("a/b/g", 0o644, "2"), file("a/h", 0o644, "3")},
		{whiteout("a/b/.wh..wh..opq"), file("a/b/c/new", 0o644, "4"), whiteout("a/.wh..wh..opq"), file("a/b/late", 0o644, "5")},
		{whiteout("a/b/c/.wh..wh..opq"), file("a/b/c/last", 0o644, "6")},
	}},
	{"opaque root", [][]entry{
		{file("a", 0o644, "1"), file("d/f", 0o644, "2")},
		{file("b", 0o644, "3"), whiteout(".wh..wh..opq"), file("d/g", 0o644, "4")},
	}},
	{"opaque folder that a link of another leads out of", [][]entry{
		{file("d/f", 0o644, "kept by its other name"), hardlink("e", "d/f"), symlink("to", "d")},
		{whiteout("to/.wh..wh..opq"), hardlink("d/g", "e")},
	}},
	{"whiteout, the same name again as a link, and hidden again", [][]entry{
		{file("a", 0o644, "1"), file("b", 0o644, "2")},
		{whiteout(".wh.a"), hardlink("a", "b")},
		{whiteout(".wh.b")},
		{symlink("a", "b"), whiteout(".wh.a")},
	}},
	{"a layer of nothing but whiteouts, and an empty one", [][]entry{
		{file("a", 0o644, "1"), file("d/b", 0o644, "2")}, {whiteout(".wh.a"), whiteout("d/.wh..wh..opq")}, {},
	}},
	{"folder, file, folder, symbolic link, folder", [][]entry{
		{dir("d", 0o755), file("d/f", 0o644, "1"), hardlink("out", "d/f")},
		{file("d", 0o644, "file")},
		{dir("d", 0o711), file("d/g", 0o644, "2")},
		{symlink("d", "elsewhere"), dir("elsewhere", 0o755), file("d/h", 0o644, "3")},
		{whiteout(".wh.d"), dir("d", 0o755), file("d/i", 0o644, "4")},
	}},
	{"one name again and again in a layer", [][]entry{
		{
			file("f", 0o644, "1"), file("f", 0o600, "2"), dir("f", 0o755), file("f/g", 0o644, "3"), file("f", 0o755, "4"),
			dir("d", 0o700), dir("d", 0o1777), fifo("f"), hardlink("g", "f"), file("f", 0o640, "5"),
		},
	}},
	{"device nodes, that of a whiteout among them", [][]entry{
		{file("null", 0o644, "1"), file("zero", 0o644, "2"), hardlink("other", "zero"), file("d/in", 0o644, "3")},
		{
			device("null", tar.TypeChar),
			entry{tar.Header{Name: "zero", Typeflag: tar.TypeChar}, ""},
			device("d", tar.TypeBlock),
			hardlink("copy", "d"),
		},
		{file("d/again", 0o644, "4"), hardlink("null", "copy")},
	}},
}

// linkSets are about names that lead somewhere else.
var linkSets = []layerSet{
	{"hard links over layers, of which one name is left", [][]entry{
		{file("a", 0o644, "1"), hardlink("b", "a"), hardlink("d/c", "b")},
		{hardlink("e", "d/c"), whiteout(".wh.a"), file("b", 0o600, "other")},
		{whiteout(".wh.d"), hardlink("f", "e"), whiteout(".wh.e")},
	}},
	{"hard links to fifos, symbolic links, and files without rights", [][]entry{
		{fifo("p"), hardlink("p2", "p"), file("n", 0, "secret"), symlink("l", "n")},
		{hardlink("n2", "n"), hardlink("l2", "l"), hardlink("p3", "p2"), file("n", 0o644, "open")},
	}},
	{"merged /usr", [][]entry{
		{
			dir("usr", 0o755), dir("usr/bin", 0o755), dir("usr/lib", 0o755), symlink("bin", "usr/bin"), symlink("lib", "/usr/lib"),
			symlink("lib64", "lib"), file("usr/lib/a.so", 0o644, "1"), file("usr/bin/sh", 0o755, "2"),
		},
		{file("lib64/b.so", 0o644, "3"), hardlink("lib/c.so", "lib64/a.so"), whiteout("lib64/.wh.a.so"), dir("lib/x", 0o755), file("bin/new", 0o755, "4")},
		{dir("lib", 0o755), file("lib/real", 0o644, "5"), file("lib64/d.so", 0o644, "6")},
		{symlink("usr/lib/x", "../../opt/x"), file("usr/lib/x/far", 0o644, "7")},
	}},
	{"links out of the image stay inside", [][]entry{
		{symlink("up", "../../../.."), symlink("abs", "/"), file("up/a", 0o644, "1"), file("abs/b", 0o644, "2"), hardlink("up/c", "/../abs/b")},
		{symlink("etc", "/../etc2"), file("etc/passwd", 0o644, "3"), symlink("self", "."), file("self/self/d", 0o644, "4")},
	}},
	{"links to what is not there, through what is a file", [][]entry{
		{symlink("gone", "no/such"), file("f", 0o644, "1"), symlink("tofile", "f")},
		{file("gone/x", 0o644, "2"), file("tofile/y", 0o644, "3")},
	}},
}

// nameSets are about names, paths and the ways in which tars have them.
func nameSets() []layerSet {
	long := strings.Repeat("n", 255)
	deep := strings.Repeat(strings.Repeat("d", 77)+"/", 47)
	pax := func(e entry) entry { e.Format = tar.FormatPAX; return e }
	gnu := func(e entry) entry { e.Format = tar.FormatGNU; return e }
	return []layerSet{
		{"long names", [][]entry{
			{pax(file(deep+"f", 0o644, "1")), gnu(file("gnu/"+long, 0o644, "2")), pax(file("pax/"+long, 0o644, "3"))},
			{
				gnu(symlink("s", strings.Repeat("t", 4095))), pax(symlink("u", strings.Repeat("ü", 2000))), pax(hardlink("h", deep+"f")),
				gnu(hardlink("i", "gnu/"+long)), whiteout("pax/.wh." + long[:251]), file("pax/"+long[:251], 0o644, "4"),
			},
		}},
		{"names that are not UTF-8", [][]entry{
			{file("\xff\xfe", 0o644, "1"), gnu(file("\x80"+long[1:], 0o644, "2")), pax(file("ä€😀", 0o644, "3")), dir("d\x01\x7f", 0o755)},
			{whiteout(".wh.\xff\xfe"), file("d\x01\x7f/new\nline", 0o644, "4"), symlink("l\xe4", "\xff"), hardlink("\xfc", "ä€😀")},
		}},
		{"ways to write a path", [][]entry{{
			dir("./", 0o700), dir("./a/", 0o755), file("./a//b", 0o644, "1"), file("/abs/c", 0o644, "2"), file("x/../y", 0o644, "3"),
			file("a/./d", 0o644, "4"), hardlink("./e", "./a/../a/b"), dir("z/", 0o755), file(".hidden", 0o644, "5"), file("...", 0o644, "6"),
		}}},
		{"times", [][]entry{{
			at(file("past", 0o644, ""), time.Unix(-1, 0)), at(file("future", 0o644, ""), time.Unix(1<<40, 0)), at(dir("d", 0o755), time.Unix(7, 0)),
			pax(at(file("d/part", 0o644, ""), time.Unix(1_234_567_890, 987_654_321))), pax(at(symlink("l", "x"), time.Unix(-5, 5))),
		}}},
		{"attributes and owners", [][]entry{{
			attributes(file("f", 0o640, "1")), attributes(dir("d", 0o2750)), attributes(file("d/su", 0o6711, "2")),
		}, {
			attributes(hardlink("g", "f")), attributes(symlink("l", "f")),
		}}},
		{"every mode", [][]entry{everyMode()}},
	}
}

func at(e entry, t time.Time) entry { e.ModTime = t; return e }

// attributes gives an entry what no image in a store has.
func attributes(e entry) entry {
	e.Uid, e.Gid, e.Uname, e.Gname = 1000, 42, "user", "shadow"
	e.PAXRecords = map[string]string{
		"SCHILY.xattr.user.note": "v", "SCHILY.xattr.security.capability": "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00",
		"SCHILY.xattr.trusted.overlay.opaque": "y", "SCHILY.acl.access": "user::rw-",
	}
	return e
}

func everyMode() []entry {
	var all []entry
	for mode := range int64(0o10000) {
		if mode%5 == 0 || mode < 8 {
			all = append(all, file(fmt.Sprintf("f/%04o", mode), mode, ""), dir(fmt.Sprintf("d/%04o", mode), mode))
		}
	}
	return all
}

// contentSets are about what files hold, and how many there are.
func contentSets() []layerSet {
	r := rand.New(rand.NewPCG(1, 2))
	noise := func(n int) string {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(r.IntN(20))
		}
		return string(b)
	}
	const block = squashfs.BlockSize
	zeros := func(n int) string { return strings.Repeat("\x00", n) }
	var sizes, many []entry
	for _, n := range []int{0, 1, block - 1, block, block + 1, 2*block - 1, 2 * block, 3*block + 77} {
		sizes = append(sizes, file(fmt.Sprintf("noise-%d", n), 0o644, noise(n)), file(fmt.Sprintf("zeros-%d", n), 0o644, zeros(n)),
			file(fmt.Sprintf("before-%d", n), 0o644, zeros(n)+noise(block)), file(fmt.Sprintf("after-%d", n), 0o644, noise(block)+zeros(n)),
			file(fmt.Sprintf("amid-%d", n), 0o644, noise(3*block)+zeros(n)+noise(10)))
	}
	for i := range 9_000 {
		many = append(many, file(fmt.Sprintf("many/%05d-%s", i*7919%9_000, strings.Repeat("n", i%40)), 0o644, noise(i%30)))
	}
	return []layerSet{
		{"sizes around a block, holes", [][]entry{sizes, {hardlink("amid", fmt.Sprintf("amid-%d", block)), whiteout(".wh.noise-1")}}},
		{"content that cannot be compressed", [][]entry{{file("random", 0o644, random(r, 5*block+9)), file("small", 0o644, random(r, 5000))}}},
		{"a folder of 9,000", [][]entry{many, {whiteout("many/.wh.00007-" + strings.Repeat("n", 33)), hardlink("many/zz", "many/00000-")}}},
	}
}

func random(r *rand.Rand, n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return string(b)
}

// programTars are what GNU tar writes of one folder in its formats. Sparse
// files have a type of their own, or one of three kinds of PAX records.
func programTars(t *testing.T) map[string][]byte {
	t.Helper()
	top := t.TempDir()
	f, err := os.Create(filepath.Join(top, "sparse"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, part := range []int64{1 << 17, 1 << 20, 3<<20 + 5} {
		if _, err := f.WriteAt([]byte("data"), part); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Truncate(5 << 20); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(top, strings.Repeat("long", 40)), []byte("content"))
	writeFile(t, filepath.Join(top, "\xff\xfe"), []byte("bytes"))
	tars := map[string][]byte{}
	for name, args := range map[string][]string{
		"GNU, sparse": {"--format=gnu", "-S"}, "PAX, sparse 0.0": {"--format=posix", "-S", "--sparse-version=0.0"},
		"PAX, sparse 0.1": {"--format=posix", "-S", "--sparse-version=0.1"}, "PAX, sparse 1.0": {"--format=posix", "-S", "--sparse-version=1.0"},
		"PAX, global header": {"--format=posix", "--pax-option=globexthdr.name=g,comment=x,mtime=5"}, "PAX, in blocks of 1 MiB": {"--format=posix", "-b2048"},
	} {
		raw, err := exec.CommandContext(testContext(t), "tar", append(args, "-C", top, "-c", ".")...).Output()
		if err != nil {
			t.Fatal(err)
		}
		tars[name] = raw
	}
	return tars
}
