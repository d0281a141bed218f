package imagecache

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berth-hpc/berth/imagecache/store"
)

// converters are all implementations; each has to pass the suite below.
var converters = []Converter{Umoci{}, Stream{}}

// treeCases are layers, and the tree that they have to give.
var treeCases = []struct {
	name   string
	layers [][]entry
	want   map[string]string // path -> what describe says; "" must be absent
}{
	{"upper layer wins", [][]entry{
		{dir("d", 0o755), file("d/f", 0o644, "old"), file("d/g", 0o644, "kept")},
		{file("d/f", 0o755, "new")},
	}, map[string]string{"d": "dir 0755", "d/f": "file 0755 new", "d/g": "file 0644 kept"}},
	{"hard link to a file of a lower layer", [][]entry{
		{file("a", 0o644, "lower")},
		{hardlink("b", "a")},
	}, map[string]string{"a": "file 0644 lower", "b": "file 0644 lower = a"}},
	{"replacing one name of a hard link keeps the other", [][]entry{
		{file("a", 0o644, "lower"), hardlink("b", "a")},
		{file("a", 0o644, "upper")},
	}, map[string]string{"a": "file 0644 upper", "b": "file 0644 lower"}},
	{"whiteout", [][]entry{
		{dir("d", 0o755), file("d/f", 0o644, "x"), dir("d/sub", 0o755), file("d/sub/g", 0o644, "y")},
		{whiteout("d/.wh.f"), whiteout("d/.wh.sub")},
	}, map[string]string{"d": "dir 0755", "d/f": "", "d/sub": "", "d/.wh.f": ""}},
	{"whiteout of what is not there makes nothing", [][]entry{
		{file("f", 0o644, "x")},
		{whiteout("no/such/.wh.thing")},
	}, map[string]string{"f": "file 0644 x", "no": ""}},
	{"opaque folder", [][]entry{
		{dir("d", 0o755), file("d/old", 0o644, "x")},
		{dir("d", 0o755), whiteout("d/.wh..wh..opq"), file("d/new", 0o644, "y")},
	}, map[string]string{"d/old": "", "d/new": "file 0644 y"}},
	{"opaque mark after the folder's new content", [][]entry{
		{dir("d", 0o755), file("d/old", 0o644, "x")},
		{dir("d", 0o755), file("d/new", 0o644, "y"), whiteout("d/.wh..wh..opq")},
	}, map[string]string{"d/old": "", "d/new": "file 0644 y"}},
	{"whiteout and the same name again", [][]entry{
		{file("f", 0o644, "old")},
		{whiteout(".wh.f"), file("f", 0o644, "new")},
	}, map[string]string{"f": "file 0644 new"}},
	{"the same name and then its whiteout", [][]entry{
		{file("f", 0o644, "old")},
		{file("f", 0o644, "new"), whiteout(".wh.f")},
	}, map[string]string{"f": "file 0644 new"}},
	{"through a symbolic link (merged /usr)", [][]entry{
		{dir("usr", 0o755), dir("usr/lib", 0o755), symlink("lib", "usr/lib")},
		{file("lib/x.so", 0o644, "so")},
	}, map[string]string{"lib": "link usr/lib", "usr/lib/x.so": "file 0644 so"}},
	{"an absolute symbolic link stays inside", [][]entry{
		{dir("usr", 0o755), symlink("bin", "/usr/bin"), dir("usr/bin", 0o755)},
		{file("bin/sh", 0o755, "sh")},
	}, map[string]string{"bin": "link /usr/bin", "usr/bin/sh": "file 0755 sh"}},
	{"folders without entries", [][]entry{
		{file("a/b/c", 0o644, "x")},
	}, map[string]string{"a": "dir 0755", "a/b": "dir 0755", "a/b/c": "file 0644 x"}},
	{"folder replaced by file and back", [][]entry{
		{dir("d", 0o755), file("d/f", 0o644, "1")},
		{file("d", 0o644, "now a file")},
		{dir("d", 0o755), file("d/g", 0o644, "2")},
	}, map[string]string{"d": "dir 0755", "d/f": "", "d/g": "file 0644 2"}},
	{"file replaced by a folder without an entry", [][]entry{
		{file("d", 0o644, "file")},
		{file("d/e/g", 0o644, "2")},
	}, map[string]string{"d": "dir 0755", "d/e": "dir 0755", "d/e/g": "file 0644 2"}},
	{"unreadable files keep their content", [][]entry{
		{file("shadow", 0, "secret"), file("x", 0o001, "x only"), dir("closed", 0), file("closed/f", 0o200, "w only")},
	}, map[string]string{
		"shadow": "file 0444 secret", "x": "file 0555 x only",
		"closed": "dir 0755", "closed/f": "file 0644 w only",
	}},
	{"unreadable file of a lower layer, linked from above", [][]entry{
		{dir("etc", 0o700), file("etc/shadow", 0, "secret")},
		{hardlink("etc/shadow-", "etc/shadow")},
	}, map[string]string{"etc/shadow": "file 0444 secret", "etc/shadow-": "file 0444 secret = etc/shadow"}},
	{"rights", [][]entry{
		{
			file("setuid", 0o4755, "x"), file("setgid", 0o2755, "x"), file("sticky", 0o1644, "x"),
			dir("tmp", 0o1777), dir("shared", 0o2775), file("private", 0o700, "x"), file("g", 0o060, "x"),
		},
	}, map[string]string{
		"setuid": "file 0755 x", "setgid": "file 0755 x", "sticky": "file 0644 x",
		"tmp": "dir 01777", "shared": "dir 0775", "private": "file 0755 x", "g": "file 0464 x",
	}},
	{"device nodes are left out", [][]entry{
		{dir("dev", 0o755), device("dev/sda", tar.TypeBlock), device("dev/null", tar.TypeChar), fifo("dev/initctl")},
	}, map[string]string{"dev": "dir 0755", "dev/sda": "", "dev/null": "", "dev/initctl": "fifo 0644"}},
	{"a device node hides a lower file and may be linked to", [][]entry{
		{file("f", 0o644, "lower")},
		{device("f", tar.TypeChar), hardlink("g", "f")},
	}, map[string]string{"f": "", "g": ""}},
	{"a file replaces a device node", [][]entry{
		{device("f", tar.TypeChar)},
		{file("f", 0, "file")},
	}, map[string]string{"f": "file 0444 file"}},
	{"names", [][]entry{
		{file(strings.Repeat("n", 255), 0o644, "long"), file("with space\nand newline", 0o644, "x"), file("\xff\xfe", 0o644, "bytes")},
	}, map[string]string{
		strings.Repeat("n", 255): "file 0644 long", "with space\nand newline": "file 0644 x", "\xff\xfe": "file 0644 bytes",
	}},
	{"dots in names stay inside", [][]entry{
		{file("../../escape", 0o644, "x"), file("./a//b", 0o644, "y"), file("/abs", 0o644, "z")},
	}, map[string]string{"escape": "file 0644 x", "a/b": "file 0644 y", "abs": "file 0644 z"}},
	{"root folder", [][]entry{{dir("./", 0o700)}}, map[string]string{".": "dir 0755"}},
	{"no root folder", [][]entry{{file("f", 0o644, "")}}, map[string]string{".": "dir 0755"}},
	{"global headers are no files", [][]entry{
		{entry{tar.Header{Typeflag: tar.TypeXGlobalHeader, PAXRecords: map[string]string{"comment": "x"}}, ""}, file("f", 0o644, "x")},
	}, map[string]string{"f": "file 0644 x", "pax_global_header": ""}},
}

func device(name string, kind byte) entry {
	return entry{tar.Header{Name: name, Typeflag: kind, Mode: 0o666, Devmajor: 1, Devminor: 3}, ""}
}

func fifo(name string) entry {
	return entry{tar.Header{Name: name, Typeflag: tar.TypeFifo, Mode: 0o600 | 0o044}, ""}
}

func TestConvertersTrees(t *testing.T) {
	for _, c := range converters {
		for _, test := range treeCases {
			t.Run(c.Name()+"/"+test.name, func(t *testing.T) {
				t.Parallel()
				var tars [][]byte
				for _, l := range test.layers {
					tars = append(tars, tarOf(t, l...))
				}
				tree := readTree(t, convertTars(t, c, tars...))
				for path, want := range test.want {
					if got := tree[path]; got != want {
						t.Errorf("%q: got %q, want %q", path, got, want)
					}
				}
			})
		}
	}
}

// convertTars returns the squashfs file of the layers.
func convertTars(t *testing.T, c Converter, tars ...[]byte) string {
	t.Helper()
	s := openStore(t)
	im, err := Pull(testContext(t), s, writeLayout(t, imageOf(t, tars...)), FetchOptions{Converter: c})
	if err != nil {
		t.Fatal(err)
	}
	checkStructure(t, im.Rootfs())
	return im.Rootfs()
}

// readTree reads a squashfs file back with unsquashfs.
func readTree(t *testing.T, squashfs string) map[string]string {
	t.Helper()
	root := extract(t, squashfs)
	tree, first := map[string]string{}, map[uint64]string{}
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, path)
		tree[rel], err = describe(path, rel, e, first)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

func extract(t *testing.T, squashfs string) string {
	t.Helper()
	root := filepath.Join(t.TempDir(), "out")
	// For ordinary users unsquashfs applies the umask.
	const script = `umask 0; exec unsquashfs -no-progress -d "$1" "$2"`
	out, err := exec.CommandContext(testContext(t), "sh", "-c", script, "sh", root, squashfs).CombinedOutput()
	if err != nil {
		t.Fatalf("unsquashfs: %v: %s", err, out)
	}
	return root
}

func describe(path, rel string, e fs.DirEntry, first map[uint64]string) (string, error) {
	info, err := e.Info()
	if err != nil {
		return "", err
	}
	st := info.Sys().(*syscall.Stat_t)
	mode := fmt.Sprintf("%#o", st.Mode&0o7777)
	if int(st.Uid) != os.Geteuid() {
		mode += fmt.Sprintf(" uid %d", st.Uid)
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return "dir " + mode, nil
	case unix.S_IFLNK:
		target, err := os.Readlink(path)
		return "link " + target, err
	case unix.S_IFREG:
		raw, err := os.ReadFile(path)
		same := ""
		if name, ok := first[st.Ino]; ok {
			same = " = " + name
		}
		first[st.Ino] = rel
		return "file " + mode + " " + string(raw) + same, err
	case unix.S_IFIFO:
		return "fifo " + mode, nil
	default:
		return fmt.Sprintf("other %#o", st.Mode), nil
	}
}

// hardImage has everything that could depend on who unpacks it and how.
func hardImage(t testing.TB) [][]byte {
	t.Helper()
	owned := file("owned", 0o640, "x")
	owned.Uid, owned.Gid = 1000, 42
	owned.PAXRecords = map[string]string{
		"SCHILY.xattr.user.note": "v", "SCHILY.xattr.security.capability": "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00",
	}
	old := file("old", 0o644, "x")
	old.ModTime = time.Unix(-5, 0)
	return [][]byte{
		tarOf(t, owned, old, file("shadow", 0, "s"), dir("closed", 0), file("closed/f", 0, "x"),
			file("su", 0o6755, "x"), device("dev/null", tar.TypeChar), file("made/up/f", 0o644, "x")),
		tarOf(t, whiteout("made/up/.wh.f"), file("closed/g", 0o200, "x"), hardlink("shadow-", "shadow"), fifo("pipe")),
	}
}

// TestSameBytesForEverybody pulls one image as root, as an ordinary user and
// under another umask, on two kinds of disk at best, and wants equal files.
func TestSameBytesForEverybody(t *testing.T) {
	r := newTestRegistry(t)
	ref := r.push(t, "hard:1", imageOf(t, hardImage(t)...))
	own, err := Pull(testContext(t), openStore(t), ref, FetchOptions{Converter: Umoci{Processors: 1}})
	if err != nil {
		t.Fatal(err)
	}
	want := sumFile(t, own.Rootfs())
	for _, test := range []struct {
		name string
		uid  int
		env  string
	}{
		{"caller", os.Geteuid(), "A=1"},
		{"ordinary user", nobodyID, "A=1"},
		{"ordinary user, umask 077", nobodyID, "BERTH_TEST_UMASK=1"},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := newHelper(t, test.uid)
			dir := h.pull(t, ref, test.env)
			if got := sumFile(t, filepath.Join(dir, store.RootfsName)); got != want {
				t.Errorf("other bytes than the caller's own:\n%v\n%v", readTree(t, own.Rootfs()), readTree(t, filepath.Join(dir, store.RootfsName)))
			}
		})
	}
}

func TestNoExtendedAttributes(t *testing.T) {
	root := extract(t, convertTars(t, Umoci{}, hardImage(t)...))
	if n, err := unix.Llistxattr(filepath.Join(root, "owned"), nil); n != 0 && err == nil {
		t.Errorf("%d bytes of attribute names", n)
	}
}

// TestAttributesOfTheDisk: a disk may give files attributes that no layer has
// (SELinux labels, above all). They do not get into the image either.
func TestAttributesOfTheDisk(t *testing.T) {
	tree := t.TempDir()
	name := filepath.Join(tree, "f")
	writeFile(t, name, nil)
	if err := unix.Lsetxattr(name, "user.label", []byte("x"), 0); err != nil {
		t.Skipf("this disk holds no attributes: %v", err)
	}
	squashfs := filepath.Join(t.TempDir(), "out.sqfs")
	if err := (Umoci{}).squash(testContext(t), tree, squashfs, nil); err != nil {
		t.Fatal(err)
	}
	if n, err := unix.Llistxattr(filepath.Join(extract(t, squashfs), "f"), nil); n != 0 && err == nil {
		t.Errorf("%d bytes of attribute names", n)
	}
}

func TestTimes(t *testing.T) {
	fixed := file("d/f", 0o644, "x")
	fixed.ModTime = time.Unix(1_234_567_890, 0)
	future := file("future", 0o644, "x")
	future.ModTime = time.Unix(1<<33, 0)
	past := file("past", 0o644, "x")
	past.ModTime = time.Unix(-1, 0)
	stamped := dir("stamped", 0o755)
	stamped.ModTime = time.Unix(1_111_111_111, 0)
	// The folder "gone" is made on the way through a link that took the place
	// of a folder that was known to exist.
	squashfs := convertTars(t, Umoci{}, tarOf(t, fixed, future, past, stamped, device("stamped/dev", tar.TypeChar)),
		tarOf(t, file("stamped/later", 0o644, ""), file("x/a", 0o644, ""), file("x/c", 0o644, ""), symlink("x", "gone"), file("x/b", 0o644, "")))
	raw, err := os.ReadFile(squashfs)
	if err != nil {
		t.Fatal(err)
	}
	if made := binary.LittleEndian.Uint32(raw[8:]); made != 0 {
		t.Errorf("the file says it was made at %d", made)
	}
	root := extract(t, squashfs)
	for name, want := range map[string]int64{
		"d/f": 1_234_567_890, "d": 0, ".": 0, "past": 0, "gone": 0, "future": 1<<32 - 1, "stamped": 1_111_111_111,
	} {
		info, err := os.Stat(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		if got := info.ModTime().Unix(); got != want {
			t.Errorf("%s: got %d, want %d", name, got, want)
		}
	}
}

func sumFile(t *testing.T, path string) [32]byte {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return sha256.Sum256(raw)
}

// TestOldSparseFiles unpacks the sparse files of GNU tar's own format, which
// have a type of their own.
func TestOldSparseFiles(t *testing.T) {
	dir := t.TempDir()
	f, err := os.Create(filepath.Join(dir, "sparse"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte("end"), 1<<20); err != nil {
		t.Fatal(err)
	}
	raw, err := exec.CommandContext(testContext(t), "tar", "--format=gnu", "-S", "-C", dir, "-c", "sparse").Output()
	if err != nil {
		t.Fatal(err)
	}
	if len(raw) > 1<<18 {
		t.Skip("this disk does not tell tar where holes are")
	}
	got := readTree(t, convertTars(t, Umoci{}, raw))["sparse"]
	if len(got) < 1<<20 || !strings.HasSuffix(got, "\x00end") {
		t.Errorf("%d bytes", len(got))
	}
}

// TestUnreadableFilesFailTheSquash: mksquashfs by itself would warn and store
// an empty file.
func TestUnreadableFilesFailTheSquash(t *testing.T) {
	h := newHelper(t, nobodyID)
	tree := filepath.Join(h.dir, "tree")
	if err := os.Mkdir(tree, 0o755); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(tree, "closed"), []byte("secret"))
	for _, err := range []error{
		os.Chmod(filepath.Join(tree, "closed"), 0), os.Chown(tree, h.uid, -1), os.Chown(filepath.Join(tree, "closed"), h.uid, -1),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	out, err := h.command(testContext(t), mustParse(t, "x"), "BERTH_TEST_SQUASH="+tree).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "mksquashfs") {
		t.Errorf("got %v: %s", err, out)
	}
}
