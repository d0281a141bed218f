package inside

import (
	"bytes"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/berth-hpc/berth/launcher"
	"github.com/berth-hpc/berth/launcher/changes"
	"github.com/berth-hpc/berth/testdata/checker"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// FuzzMounts: what is taken stays below the root, means the same when it is
// written down in full, and is what the plugin takes at submission.
func FuzzMounts(f *testing.F) {
	table, err := os.ReadFile("../../spank/tests/testdata/mounts.txt")
	if err != nil {
		f.Fatal(err)
	}
	for line := range strings.Lines(string(table)) {
		if _, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "\t"); ok {
			f.Add(value)
		}
	}
	plugin := checker.New(f, "mounts")
	const dir = "/job/dir"
	f.Fuzz(func(t *testing.T, value string) {
		binds, err := parseMounts(value, dir)
		if !strings.Contains(value, "\x00") {
			comparePlugin(t, value, err, plugin.Refuses(t, value))
		}
		if err != nil {
			return
		}
		for _, b := range binds {
			if b.target == "/" || b.target != path.Join("/", b.target) || strings.ContainsFunc(b.source+b.target+b.data, isControl) {
				t.Errorf("%q: target %q of %q", value, b.target, b.source)
			}
			if !b.tmpfs && !b.remove && !filepath.IsAbs(b.source) {
				t.Errorf("%q: source %q", value, b.source)
			}
			again, err := parseMounts(b.source+":"+b.target+flagsOf(&b), "/elsewhere")
			if err != nil || len(again) != 1 || !cmp.Equal(again[0], b, cmp.AllowUnexported(bind{})) {
				t.Errorf("%q: %+v, again %+v, %v", value, b, again, err)
			}
		}
	})
}

// comparePlugin: only the node knows where a relative source leads to.
func comparePlugin(t *testing.T, value string, err error, refused string) {
	t.Helper()
	if (err != nil) == (refused != "") || refused == "" && strings.Contains(err.Error(), "the target is the container's root") {
		return
	}
	t.Errorf("%q: the launcher says %v, the plugin %q", value, err, refused)
}

// flagsOf writes b's flags as users do, after a colon.
func flagsOf(b *bind) string {
	if b.remove {
		return ""
	}
	words := []string{"rw", "rbind"}
	if b.readonly {
		words[0] = "ro"
	}
	if b.single {
		words[1] = "bind"
	}
	for flag, word := range map[int]string{unix.MS_NOSUID: "nosuid", unix.MS_NODEV: "nodev", unix.MS_NOEXEC: "noexec"} {
		if b.flags&flag != 0 {
			words = append(words, word)
		}
	}
	for kind, word := range map[int]string{unix.MS_PRIVATE: "private", unix.MS_SLAVE: "slave", unix.MS_SHARED: "shared", unix.MS_UNBINDABLE: "unbindable"} {
		switch b.propagation {
		case kind:
			words = append(words, word)
		case kind | unix.MS_REC:
			words = append(words, "r"+word)
		}
	}
	if b.data != "" {
		words = append(words, strings.Split(b.data, ",")...)
	}
	return ":" + strings.Join(words, "+")
}

// FuzzNames: the plugin and the node have one idea of a container's name, and
// it is one element of a path.
func FuzzNames(f *testing.F) {
	for _, s := range []string{"a", "a:auto", "a:", "a:b", "4711.0", ".a", "-a", "a/b", strings.Repeat("x", 129), "ä", "a:exec:x"} {
		f.Add(s)
	}
	plugin := checker.New(f, "name")
	f.Fuzz(func(t *testing.T, s string) {
		kept, err := launcher.ParseKept(s)
		if err == nil {
			err = changes.CheckName(kept.Name)
		}
		if err == nil && (path.Base(kept.Name) != kept.Name || !filepath.IsLocal(kept.Name)) {
			t.Errorf("%q is taken for a name", kept.Name)
		}
		if strings.Contains(s, "\x00") {
			return
		}
		if refused := plugin.Refuses(t, s); (err != nil) != (refused != "") {
			t.Errorf("%q: the node says %v, the plugin %q", s, err, refused)
		}
	})
}

// FuzzAccounts: whatever accounts an image has and a name service says, the user
// answers by name and by number, no line is cut or made longer, and a second
// time changes nothing.
func FuzzAccounts(f *testing.F) {
	f.Add("root:x:0:0::/root:/bin/ash\nalice:x:1:1::/:/bin/sh", "root:x:0:\nalice:x:62001:app,last\n", "alice", "Alice, Room 1", "/home/alice", "/bin/sh")
	f.Add("alice\nalice:\n:::\n\n", "group62002:x:62002:\n", "a:b", "x\ny", "relative", "")
	f.Add("+::::::\n", "+:::", "", "", "", "/bin/\x00")
	f.Fuzz(func(t *testing.T, passwd, group, name, realName, home, shell string) {
		image, work := t.TempDir(), t.TempDir()
		write(t, filepath.Join(image, "etc/passwd"), []byte(passwd))
		write(t, filepath.Join(image, "etc/group"), []byte(group))
		req := &launcher.Request{User: launcher.User{UID: 62001, GID: 62001, Groups: []int{62002, 62001}, Name: name, Home: home, Shell: shell}}
		lookUp(&req.User)
		if err := writeAccounts(req, realName, image, work); err != nil {
			t.Fatal(err)
		}
		first := accounts(t, work, req.User.Name)
		for file, text := range first {
			write(t, filepath.Join(image, "etc", file), []byte(text))
		}
		if err := writeAccounts(req, realName, image, work); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(first, accounts(t, work, req.User.Name)); diff != "" {
			t.Error(diff)
		}
	})
}

// accounts are the files that were made, after a look at them as name services do.
func accounts(t *testing.T, work, name string) map[string]string {
	t.Helper()
	found := map[string]string{}
	for file, fields := range map[string]int{"passwd": 7, "group": 4} {
		text, err := os.ReadFile(filepath.Join(work, file))
		if err != nil {
			t.Fatal(err)
		}
		found[file] = string(text)
		line, _, _ := strings.Cut(string(text), "\n")
		if f := strings.Split(line, ":"); len(f) != fields || f[0] != name || f[2] != strconv.Itoa(62001) || f[1] != "x" {
			t.Errorf("%s begins with %q", file, line)
		}
		if n := strings.Count("\n"+string(text), "\n"+name+":"); n != 1 {
			t.Errorf("%s has %s %d times:\n%s", file, name, n, text)
		}
	}
	return found
}

// FuzzLibrary: whatever calls itself a library, its name can stand in a folder,
// and reading it takes no more memory than its size explains.
func FuzzLibrary(f *testing.F) {
	source, out := filepath.Join(f.TempDir(), "x.c"), filepath.Join(f.TempDir(), "libx.so")
	if err := os.WriteFile(source, []byte("int printf(const char *, ...); int x(void) { return printf(\"x\"); }"), 0o644); err != nil {
		f.Fatal(err)
	}
	for _, soname := range []string{"libx.so.1", "..", "/etc/passwd"} {
		text, err := exec.CommandContext(f.Context(), "cc", "-shared", "-fPIC", "-s", "-Wl,-z,noseparate-code", "-Wl,-soname,"+soname, "-o", out, source).CombinedOutput()
		if err != nil {
			f.Skipf("cc: %v: %s", err, text)
		}
		raw, err := os.ReadFile(out)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Add([]byte("\x7fELF"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		file := filepath.Join(t.TempDir(), "lib")
		write(t, file, raw)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		lib, ok := readLibrary(file)
		version := providedGlibc(file)
		runtime.ReadMemStats(&after)
		if took := after.TotalAlloc - before.TotalAlloc; took > uint64(64<<20+64*len(raw)) {
			t.Errorf("%d bytes of memory for a file of %d", took, len(raw))
		}
		if ok && (lib.Name != path.Base(lib.Name) || !filepath.IsLocal(lib.Name) || lib.Name == "." || lib.Flags == 0 || strings.Contains(lib.Name, "\x00")) {
			t.Errorf("a library called %q, flags %#x", lib.Name, lib.Flags)
		}
		if version.major < 0 || version.minor < 0 || lib.glibc.major < 0 {
			t.Errorf("glibc %v, %v", version, lib.glibc)
		}
		if !bytes.HasPrefix(raw, []byte("\x7fELF")) && ok {
			t.Error("it is no ELF file")
		}
	})
}
