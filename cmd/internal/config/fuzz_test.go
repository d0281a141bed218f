package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// FuzzLoad: what a file of the site's sets is, written down as `berth config
// show` prints it, the same. One that is not read is said why in one line.
func FuzzLoad(f *testing.F) {
	f.Add("[store]\ndir = '/x'\n[registry.'q']\nmirrors = ['m']")
	f.Add("container.mounts = ['a', {b = 1}]")
	f.Add("[node]\nprolog_wait = '3s'\n[store]\nquota = '5%'\n[container]\nmemory = '1GiB'\nmounts = ['/db:/db:ro']\n[registry.\"a:5000\"]\nproxy = 'http://u:p@h'\n")
	f.Add("[[policy.rule]]\nname = 'x'\nimages = ['*']\naction = 'allow'\nusers = ['a']")
	f.Fuzz(func(t *testing.T, text string) {
		dir := t.TempDir()
		load := func(text string) (*Config, error) {
			if err := os.WriteFile(filepath.Join(dir, "berth.toml"), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
			return Load(Source{Dir: dir, Home: "/home/x"})
		}
		c, err := load(text)
		if err != nil {
			if strings.ContainsAny(err.Error(), "\n\r\x1b\x00") {
				t.Errorf("%q", err)
			}
			return
		}
		var shown strings.Builder
		want := map[string]string{}
		for _, v := range c.Values() {
			if strings.HasPrefix(v.Key, ruleKey) || v.Origin != Origin(filepath.Join(dir, "berth.toml")) {
				continue // rules are tables, and what is not set may have no form
			}
			want[v.Key] = v.String()
			shown.WriteString(v.Key + " = " + v.String() + "\n")
		}
		again, err := load(shown.String())
		if err != nil {
			t.Fatalf("%v\n%s", err, shown.String())
		}
		got := map[string]string{}
		for _, v := range again.Values() {
			if _, ok := want[v.Key]; ok {
				got[v.Key] = v.String()
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	})
}

// FuzzSize: a size and a share are printed so that they are read as the same.
func FuzzSize(f *testing.F) {
	for _, s := range []string{"1", "1.5GiB", "9223372036854775807", "0.1kB", " 5% ", "100.0%", "1e3", "999999999999999999PB", "-1", "0%", "1.%"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if size, err := ParseSize(text); err == nil {
			if again, err := ParseSize(size.String()); err != nil || again != size || size < 0 {
				t.Errorf("%q is %d, %v is %d, %v", text, size, size, again, err)
			}
		}
		if share, err := ParseShare(text); err == nil {
			again, err := ParseShare(share.String())
			if err != nil || again != share || share.Percent < 0 || share.Percent > 100 || share.Of(1<<40) < 0 || share.Percent > 0 && share.Of(1<<40) > 1<<40 {
				t.Errorf("%q is %v, again %v, %v", text, share, again, err)
			}
		}
	})
}
