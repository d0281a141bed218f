package trust_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/berth-hpc/berth/launcher/trust"
)

// Each way in which somebody else could change what Berth is told to do.
func TestCheckProgram(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, to make files of several users")
	}
	for _, tc := range []struct {
		name  string
		owner trust.Owner
		spoil func(dir string) error
		want  string // "" is accepted
	}{
		{name: "root's", spoil: func(string) error { return nil }},
		{name: "another's", spoil: func(d string) error { return os.Chown(d+"/a/hook", 62001, 0) }, want: "belongs to user 62001"},
		{name: "the caller's own", owner: 62001, spoil: func(d string) error { return os.Chown(d+"/a/hook", 62001, 0) }},
		{name: "writable for the group", spoil: func(d string) error { return os.Chmod(d+"/a/hook", 0o775) }, want: "others may write"},
		{name: "writable for all", spoil: func(d string) error { return os.Chmod(d+"/a/hook", 0o757) }, want: "others may write"},
		{name: "in a folder of another's", spoil: func(d string) error { return os.Chown(d+"/a", 62001, 0) }, want: "/a belongs to user"},
		{name: "in a folder that all may write", spoil: func(d string) error { return os.Chmod(d, 0o777) }, want: "others may write"},
		{name: "in a sticky folder", spoil: func(d string) error { return os.Chmod(d, 0o777|os.ModeSticky) }},
		{name: "behind a link to another's", spoil: func(d string) error {
			if err := os.WriteFile(d+"/b", nil, 0o755); err != nil {
				return err
			}
			return func() error {
				if err := os.Chown(d+"/b", 62001, 0); err != nil {
					return err
				}
				if err := os.Remove(d + "/a/hook"); err != nil {
					return err
				}
				return os.Symlink("../b", d+"/a/hook")
			}()
		}, want: "belongs to user"},
		{name: "not executable", spoil: func(d string) error { return os.Chmod(d+"/a/hook", 0o644) }, want: "cannot be executed"},
		{name: "missing", spoil: func(d string) error { return os.Remove(d + "/a/hook") }, want: "no such file"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			for up := dir; up != os.TempDir(); up = filepath.Dir(up) {
				if err := os.Chmod(up, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			hook := filepath.Join(dir, "a", "hook")
			if err := os.Mkdir(filepath.Dir(hook), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(hook, nil, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := tc.spoil(dir); err != nil {
				t.Fatal(err)
			}
			err := tc.owner.CheckProgram(hook)
			if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}
