package credentials

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A site's file with a login is taken only where nobody else could read it or
// have written it.
func TestSiteFile(t *testing.T) {
	text := `{"auths": {"mirror.site": {"auth": "` + auth("robot", "site-s3cret") + `"}}}`
	for _, tt := range []struct {
		name string
		text string
		do   func(path string) error
		err  string // "" for success
	}{
		{"0600", text, func(string) error { return nil }, ""},
		{"of our group", text, func(p string) error { return os.Chmod(p, 0o640) }, ""},
		{"of another group", text, func(p string) error {
			if err := os.Chown(p, -1, 64999); err != nil {
				return os.Chmod(p, 0o644) // not root: refused all the same
			}
			return os.Chmod(p, 0o640)
		}, "others may read it"},
		{"for all", text, func(p string) error { return os.Chmod(p, 0o604) }, "others may read it: mode 0604"},
		{"others write", text, func(p string) error { return os.Chmod(p, 0o620) }, "others may write it: mode 0620"},
		{"a link", text, func(p string) error {
			if err := os.Rename(p, p+".real"); err != nil {
				return err
			}
			return os.Symlink(p+".real", p)
		}, "too many levels of symbolic links"},
		{"missing", text, os.Remove, "no such file"},
		{"a folder", text, func(p string) error {
			if err := os.Remove(p); err != nil {
				return err
			}
			return os.Mkdir(p, 0o700)
		}, "not a regular file"},
		{"broken", "{site-s3cret", func(string) error { return nil }, "line 1 is not valid JSON"},
		{"of another host", strings.ReplaceAll(text, "mirror.site", "other.site"), func(string) error { return nil }, "there is none for mirror.site"},
		{"a helper", `{"credsStore": "x"}`, func(string) error { return nil }, "there is none for mirror.site"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "login.json")
			if err := os.WriteFile(path, []byte(tt.text), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := tt.do(path); err != nil {
				t.Fatal(err)
			}
			login, err := SiteFile{path}.Login(t.Context(), Target{Registry: "mirror.site", Repository: "copies/x"})
			if tt.err == "" {
				if err != nil || login.Name() != "robot" || login.Password().Reveal() != "site-s3cret" {
					t.Errorf("got %v, %v", login, err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.err) || strings.Contains(err.Error(), "s3cret") || !login.IsZero() {
				t.Errorf("got %v, %v, want %q", login, err, tt.err)
			}
		})
	}
	if os.Getuid() != 0 {
		t.Skip("needs root: gives files away")
	}
	path := filepath.Join(t.TempDir(), "login.json")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(path, 64999, -1); err != nil {
		t.Fatal(err)
	}
	if login, err := (SiteFile{path}).Login(t.Context(), Target{Registry: "mirror.site"}); err == nil || !strings.Contains(err.Error(), "belongs to user 64999") {
		t.Errorf("another's file: %v, %v", login, err)
	}
}
