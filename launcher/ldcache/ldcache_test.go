package ldcache_test

import (
	"bytes"
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/berth-hpc/berth/launcher/ldcache"
)

// What is written is what ldconfig itself reads: it prints the entries in the
// order of the file, which is the one in which the loader searches.
func TestLdconfigReadsIt(t *testing.T) {
	data, err := os.ReadFile("/etc/ld.so.cache")
	ldconfig := "/sbin/ldconfig"
	if _, missing := exec.LookPath(ldconfig); err != nil || missing != nil {
		t.Skip("needs a machine with glibc's ldconfig and its cache")
	}
	entries, err := ldcache.Parse(data)
	if err != nil || len(entries) < 5 {
		t.Fatalf("%d entries: %v", len(entries), err)
	}
	added := ldcache.Entry{Name: "libzz9.so.1", Path: "/x/libzz9.so.1", Flags: entries[0].Flags}
	file := filepath.Join(t.TempDir(), "cache")
	if err := os.WriteFile(file, ldcache.Format(ldcache.Add(entries, []ldcache.Entry{added})), 0o644); err != nil {
		t.Fatal(err)
	}
	before, after := list(t, ldconfig, "/etc/ld.so.cache"), list(t, ldconfig, file)
	var kept []string
	for _, line := range after {
		if !strings.Contains(line, "libzz9") {
			kept = append(kept, line)
		}
	}
	if len(after) != len(kept)+1 || strings.Join(kept, "\n") != strings.Join(withoutSubfolders(before), "\n") {
		t.Errorf("before:\n%s\nafter:\n%s", strings.Join(before, "\n"), strings.Join(after, "\n"))
	}
}

func list(t *testing.T, ldconfig, cache string) []string {
	t.Helper()
	out, err := exec.Command(ldconfig, "-p", "-C", cache).Output()
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "=>") {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines
}

func withoutSubfolders(lines []string) []string {
	var out []string
	for _, l := range lines {
		if !strings.Contains(l, "hwcap") {
			out = append(out, l)
		}
	}
	return out
}

func TestAddReplaces(t *testing.T) {
	flags := ldcache.Flags(elf.EM_X86_64)
	old := []ldcache.Entry{{Name: "libcuda.so.1", Path: "/old", Flags: flags}, {Name: "libcuda.so.1", Path: "/other-machine", Flags: 1}}
	got, err := ldcache.Parse(ldcache.Format(ldcache.Add(old, []ldcache.Entry{{Name: "libcuda.so.1", Path: "/new", Flags: flags}})))
	if err != nil || len(got) != 2 || got[0].Path != "/new" || got[1].Path != "/other-machine" {
		t.Errorf("%+v, %v", got, err)
	}
}

// An image's cache is a stranger's bytes.
func FuzzParse(f *testing.F) {
	good := ldcache.Format([]ldcache.Entry{{Name: "liba.so.1", Path: "/liba.so.1", Flags: 3}, {Name: "liba.so.10", Path: "/liba.so.10", Flags: 3}})
	f.Add(good)
	f.Add(good[:60])
	f.Add(append([]byte("ld.so-1.7.0\x00"), good...))
	f.Fuzz(func(t *testing.T, data []byte) {
		entries, err := ldcache.Parse(data)
		if err != nil {
			return
		}
		again, err := ldcache.Parse(ldcache.Format(entries))
		if err != nil || len(again) != len(entries) {
			t.Errorf("%d entries, then %d: %v", len(entries), len(again), err)
		}
		if !bytes.Equal(ldcache.Format(again), ldcache.Format(entries)) {
			t.Error("another file the second time")
		}
		ours := ldcache.Entry{Name: "liba.so.1", Path: "/ours", Flags: 3}
		with, err := ldcache.Parse(ldcache.Format(ldcache.Add(entries, []ldcache.Entry{ours})))
		named := slices.DeleteFunc(with, func(e ldcache.Entry) bool { return e.Name != ours.Name || e.Flags != ours.Flags })
		if err != nil || len(named) != 1 || named[0] != ours {
			t.Errorf("ours among %+v, %v", named, err)
		}
	})
}
