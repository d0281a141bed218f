package launcher_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/berth-hpc/berth/launcher"
)

// Root lets a user become what the file says: what it says must be the user's
// alone, and the file root's.
func TestReadSubIDs(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("the file has to be root's")
	}
	for name, tc := range map[string]struct{ text, want, err string }{
		"by name":            {"bob:100000:65536\nalice:200000:65536\n", "200000:65536", ""},
		"by number":          {"62001:200000:65536", "200000:65536", ""},
		"the largest":        {"alice:200000:10\nalice:300000:20\n62001:400000:15\n", "300000:20", ""},
		"none":               {"bob:100000:65536\n", "0:0", ""},
		"another's number":   {"620010:200000:65536\nalicea:300000:65536\n", "0:0", ""},
		"not lines of ours":  {"# alice\nalice\nalice:x:1\nalice:1:x\nalice:1:2:3\nalice:-5:70000\nalice:70000:0\n", "0:0", ""},
		"root":               {"alice:0:65536", "", "ids of accounts"},
		"accounts":           {"alice:1000:65536", "", "ids of accounts"},
		"too many":           {"alice:4294967290:6", "", "ids of accounts"},
		"wraps":              {"alice:4294967000:4294967000", "", "ids of accounts"},
		"another's":          {"alice:200000:65536\nbob:265535:65536", "", "another user's"},
		"around another's":   {"bob:210000:1\nalice:200000:65536", "", "another user's"},
		"their own":          {"alice:269000:65536", "", "the user's own id"},
		"beside another's":   {"alice:200000:65536\nbob:265536:65536", "200000:65536", ""},
		"twice the same one": {"alice:200000:65536\n62001:200000:65536", "200000:65536", ""},
	} {
		path := filepath.Join(t.TempDir(), "subuid")
		if err := os.WriteFile(path, []byte(tc.text), 0o644); err != nil {
			t.Fatal(err)
		}
		got, err := launcher.ReadSubIDs(path, "alice", 62001, 270000)
		if tc.err != "" {
			if err == nil || !strings.Contains(err.Error(), tc.err) {
				t.Errorf("%s: %v, %v, want %s", name, got, err, tc.err)
			}
			continue
		}
		if err != nil || got.String() != tc.want {
			t.Errorf("%s: %v, %v, want %s", name, got, err, tc.want)
		}
	}
}

func TestSubIDFileIsRoots(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "subuid")
	if err := os.WriteFile(path, []byte("alice:200000:65536"), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func() error{
		"group":  func() error { return os.Chmod(path, 0o664) },
		"others": func() error { return os.Chmod(path, 0o646) },
		"owner":  func() error { return os.Chown(path, user.UID, 0) },
	} {
		if err := os.Chown(path, 0, 0); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := change(); err != nil {
			t.Fatal(err)
		}
		if r, err := launcher.ReadSubIDs(path, "alice", 62001, 270000); err == nil {
			t.Errorf("%s: took %v", name, r)
		}
	}
	if _, err := launcher.ReadSubIDs(dir, "alice", 62001, 270000); err == nil {
		t.Error("took a folder")
	}
	if r, err := launcher.ReadSubIDs(filepath.Join(dir, "none"), "alice", 62001, 270000); err != nil || r.Count != 0 {
		t.Errorf("no file: %v, %v", r, err)
	}
}
