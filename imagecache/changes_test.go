package imagecache

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"

	"github.com/berth-hpc/berth/fault"
)

// newUpper makes an upper folder with everything an overlay leaves there. All
// of it can be made by an ordinary user.
func newUpper(t *testing.T) string {
	t.Helper()
	upper := filepath.Join(t.TempDir(), "upper")
	in := func(name string) string { return filepath.Join(upper, name) }
	for _, d := range []string{"", "etc", "opaque", "merged", "closed", strings.Repeat("long", 50)} {
		must(t, os.MkdirAll(in(d), 0o755))
	}
	for name, text := range map[string]string{
		"new": "new\n", "etc/file": "changed\n", "opaque/only": "this\n", "closed/in": "x\n", "secret": "s\n",
		strings.Repeat("long", 50) + "/" + strings.Repeat("name", 50): "long\n", "odd\xff": "not UTF-8\n",
	} {
		must(t, os.WriteFile(in(name), []byte(text), 0o644))
	}
	must(t, os.Link(in("new"), in("same")))
	must(t, os.Symlink("/etc/passwd", in("out")))
	must(t, os.Symlink("../../..", in("up")))
	must(t, unix.Mkfifo(in("fifo"), 0o644))
	must(t, unix.Mknod(in("merged/gone"), unix.S_IFCHR, 0))
	must(t, unix.Setxattr(in("opaque"), "user.overlay.opaque", []byte("y"), 0))
	must(t, unix.Setxattr(in("etc"), "user.overlay.impure", []byte("y"), 0))
	must(t, unix.Setxattr(in("etc/file"), "user.overlay.origin", []byte("x"), 0))
	must(t, unix.Setxattr(in("etc/file"), "user.mine", []byte("kept"), 0))
	must(t, unix.Chmod(in("new"), 0o4750))
	leaveSocket(t, in("socket"))
	if os.Geteuid() == 0 { // others need a privileged process: cmd/berth's tests have that
		must(t, os.Chmod(in("closed"), 0))
		must(t, unix.Chmod(in("secret"), 0))
	}
	t.Cleanup(func() { _ = os.Chmod(in("closed"), 0o755) })
	return upper
}

// leaveSocket leaves a socket that nobody listens at. Its path may be long.
func leaveSocket(t *testing.T, path string) {
	t.Helper()
	dir, err := os.Open(filepath.Dir(path))
	must(t, err)
	defer dir.Close()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(path)), Net: "unix"})
	must(t, err)
	l.SetUnlinkOnClose(false)
	must(t, l.Close())
}

// layerEntries reads the changes as a layer: a line for each entry.
func layerEntries(t *testing.T, c Changes) []string {
	t.Helper()
	stream, err := c.open(testContext(t))
	must(t, err)
	defer stream.Close()
	var lines []string
	for tr := tar.NewReader(stream); ; {
		h, err := tr.Next()
		if err == io.EOF {
			return lines
		}
		must(t, err)
		text, err := io.ReadAll(tr)
		must(t, err)
		line := fmt.Sprintf("%s %c %04o %d:%d %s %q", h.Name, h.Typeflag, h.Mode, h.Uid, h.Gid, h.Linkname, text)
		for name := range h.PAXRecords {
			if strings.HasPrefix(name, "SCHILY.xattr.") {
				line += " " + strings.TrimPrefix(name, "SCHILY.xattr.")
			}
		}
		lines = append(lines, line)
	}
}

func TestChangesBecomeALayer(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: reads what is closed to everybody")
	}
	upper := newUpper(t)
	long := strings.Repeat("long", 50)
	want := []string{
		`. 5 0755 0:0  ""`,
		`closed/ 5 0000 0:0  ""`,
		`closed/in 0 0644 0:0  "x\n"`,
		`etc/ 5 0755 0:0  ""`,
		`etc/file 0 0644 0:0  "changed\n" user.mine`,
		`fifo 6 0644 0:0  ""`,
		long + `/ 5 0755 0:0  ""`,
		long + "/" + strings.Repeat("name", 50) + ` 0 0644 0:0  "long\n"`,
		`merged/ 5 0755 0:0  ""`,
		`merged/.wh.gone 0 0000 0:0  ""`,
		`new 0 4750 0:0  "new\n"`,
		"odd\xff" + ` 0 0644 0:0  "not UTF-8\n"`,
		`opaque/ 5 0755 0:0  ""`,
		`opaque/.wh..wh..opq 0 0000 0:0  ""`,
		`opaque/only 0 0644 0:0  "this\n"`,
		`out 2 0777 0:0 /etc/passwd ""`,
		`same 1 4750 0:0 new ""`,
		`secret 0 0000 0:0  "s\n"`,
		`up 2 0777 0:0 ../../.. ""`,
	}
	got := layerEntries(t, Changes{Upper: upper})
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	var st unix.Stat_t
	must(t, unix.Lstat(filepath.Join(upper, "closed"), &st))
	if st.Mode&0o777 != 0 {
		t.Errorf("a closed folder has mode %o afterwards", st.Mode&0o777)
	}
}

// The same changes are the same image; a later one is another.
func TestChangesAreDeterministic(t *testing.T) {
	upper := newUpper(t)
	base := imageOf(t, tarOf(t, file("f", 0o644, "base")))
	digest := func() (string, v1.Image) {
		im, err := AddChanges(testContext(t), base, Changes{Upper: upper, Temp: t.TempDir(), CreatedBy: "a test"})
		must(t, err)
		t.Cleanup(im.Close)
		d, err := im.Digest()
		must(t, err)
		return d.String(), im
	}
	one, im := digest()
	if two, _ := digest(); one != two {
		t.Errorf("digests %s and %s", one, two)
	}
	config, err := im.ConfigFile()
	must(t, err)
	last := config.History[len(config.History)-1]
	if last.CreatedBy != "a test" || last.Created != config.Created || config.Config.WorkingDir != "/work" || len(config.RootFS.DiffIDs) != 2 {
		t.Errorf("config %+v", config)
	}
	must(t, os.Chtimes(filepath.Join(upper, "new"), time.Now(), time.Now().Add(time.Hour)))
	if three, _ := digest(); one == three {
		t.Error("another time, but the same digest")
	}
}

// What a converter makes of base and layer is what an overlay shows, whoever
// converts: umoci's unpacker and the merge, over a base of every kind of thing
// that the changes hide or replace.
func TestChangesOverABase(t *testing.T) {
	base := imageOf(t, tarOf(t,
		dir("etc", 0o755), file("etc/file", 0o644, "old\n"), file("etc/other", 0o600, "stays\n"),
		dir("opaque", 0o755), file("opaque/old", 0o644, "hidden"), dir("merged", 0o755), dir("merged/gone", 0o755), file("merged/gone/x", 0o644, "x"),
		file("merged/stays", 0o644, "stays\n"), dir("new", 0o755), file("new/in", 0o644, "x"), file("out", 0o644, "a file"),
	))
	im, err := AddChanges(testContext(t), base, Changes{Upper: newUpper(t), Temp: t.TempDir()})
	must(t, err)
	defer im.Close()
	dest := Destination{Format: FormatLayout, Path: filepath.Join(t.TempDir(), "out")}
	must(t, Save(testContext(t), im, dest, "x:latest", nil))
	long := strings.Repeat("long", 50)
	secret := "file 0444 s\n"
	if os.Geteuid() != 0 {
		secret = "file 0644 s\n"
	}
	want := map[string]string{
		".": "dir 0755", "closed": "dir 0755", "closed/in": "file 0644 x\n", "etc": "dir 0755", "etc/file": "file 0644 changed\n",
		"etc/other": "file 0644 stays\n", "fifo": "fifo 0644", long: "dir 0755", long + "/" + strings.Repeat("name", 50): "file 0644 long\n",
		"merged": "dir 0755", "merged/stays": "file 0644 stays\n", "new": "file 0755 new\n", "odd\xff": "file 0644 not UTF-8\n",
		"opaque": "dir 0755", "opaque/only": "file 0644 this\n", "out": "link /etc/passwd", "same": "file 0755 new\n = new",
		"secret": secret, "up": "link ../../..",
	}
	for _, c := range []Converter{Stream{}, Umoci{}} {
		t.Run(c.Name(), func(t *testing.T) {
			stored, err := Pull(testContext(t), openStore(t), mustParse(t, dest.String()), FetchOptions{Converter: c})
			must(t, err)
			got := readTree(t, stored.Rootfs())
			for name := range got {
				if got[name] != want[name] {
					t.Errorf("%q: %q, want %q", name, got[name], want[name])
				}
			}
			if len(got) != len(want) {
				t.Errorf("%d files, want %d", len(got), len(want))
			}
		})
	}
}

func TestChangesThatALayerCannotHold(t *testing.T) {
	upper := newUpper(t)
	must(t, os.WriteFile(filepath.Join(upper, "etc/.wh.file"), nil, 0o644))
	temp := t.TempDir()
	_, err := AddChanges(testContext(t), imageOf(t), Changes{Upper: upper, Temp: temp})
	if fault.Of(err) != fault.User || !strings.Contains(err.Error(), `"/etc/.wh.file"`) {
		t.Errorf("%v", err)
	}
	_, err = AddChanges(testContext(t), imageOf(t), Changes{Upper: filepath.Join(upper, "nosuch"), Temp: temp})
	if !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
	if left := names(t, temp); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}

// Links among the changes are kept, not followed: a file outside, however it
// is named, never becomes part of a layer.
func TestChangesDoNotLeadOut(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "outside")
	must(t, os.MkdirAll(filepath.Join(outside, "sub"), 0o755))
	must(t, os.WriteFile(filepath.Join(outside, "sub/secret"), []byte("SECRET"), 0o644))
	upper := t.TempDir()
	must(t, os.Symlink(outside, filepath.Join(upper, "folder")))
	must(t, os.Symlink(filepath.Join(outside, "sub/secret"), filepath.Join(upper, "file")))
	must(t, os.Symlink("/proc/self/root", filepath.Join(upper, "proc")))
	must(t, unix.Setxattr(upper, "user.overlay.redirect", []byte("/../outside"), 0))
	for _, line := range layerEntries(t, Changes{Upper: upper}) {
		if strings.Contains(line, "SECRET") || strings.Contains(line, "sub/") && !strings.Contains(line, " 2 ") || strings.Contains(line, "redirect") {
			t.Error(line)
		}
	}
}
