package warm

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const digest = "sha256:" + "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

// lines writes a list down for comparisons.
func lines(entries []Entry) string {
	var b strings.Builder
	for _, e := range entries {
		b.WriteString(strings.TrimSpace(strings.Join([]string{e.Name(), e.Platform, e.Keep.String(), strings.Join(e.Groups, "+")}, " ")) + "\n")
	}
	return b.String()
}

func TestParse(t *testing.T) {
	for _, tc := range []struct{ name, text, want string }{
		{
			"text", "# tools\nquay.io/biocontainers/samtools:1.20  # the usual\n\n  debian\nquay.io/biocontainers/samtools:1.20\n",
			"quay.io/biocontainers/samtools:1.20\ndocker.io/library/debian:latest\n",
		},
		{"a registry with a hash", "quay.io#a/b:1\n", "quay.io/a/b:1\n"},
		{"toml", `
keep = "168h"
platforms = ["x86_64", "arm64"]
[[image]]
name = "a.example/x:1"
[[image]]
name = "a.example/y:1"
platforms = []
digest = "` + digest + `"
keep = "forever"
groups = ["one"]
[group.two]
images = ["a.example/y:1", "a.example/z"]
platforms = ["ppc64le"]
keep = "2027-01-31"
`, `a.example/x:1 linux/amd64 168h0m0s
a.example/x:1 linux/arm64 168h0m0s
a.example/y:1  forever one
a.example/y:1 linux/ppc64le 2027-01-31T00:00:00Z two
a.example/z:latest linux/ppc64le 2027-01-31T00:00:00Z two
`},
		{"nothing", "", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l, err := Parse("x", []byte(tc.text))
			if err != nil {
				t.Fatal(err)
			}
			if got := lines(l.Entries); got != tc.want {
				t.Errorf("got\n%swant\n%s", got, tc.want)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	for text, says := range map[string]string{
		"quay.io/a\nUPPER/x\n":                   "x:2: ",
		"./a.sif\n":                              "no image in a registry",
		"a b\n":                                  "x:1: ",
		"[[image]]\nname = \"a\"\ntag = \"b\"\n": "unknown key image.tag",
		"[[image]]\nname = \"a\"\nkeep = \"soon\"\n":                                                 "soon",
		"[[image]]\nname = \"a\"\nkeep = \"-3h\"\n":                                                  "-3h",
		"[[image]]\nname = \"a\"\nplatforms = [\"pdp11\"]\n":                                         "pdp11",
		"[[image]]\nname = \"a\"\ndigest = \"sha256:short\"\n":                                       "image a",
		"platforms = [\"amd64\", \"arm64\"]\n[[image]]\nname = \"a\"\ndigest = \"" + digest + "\"\n": "one platform's",
	} {
		if l, err := Parse("x", []byte(text)); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %+v, %v; want %q", text, l, err, says)
		}
	}
}

func TestOnly(t *testing.T) {
	l, err := Parse("x", []byte("[group.a]\nimages = [\"r.example/1\"]\n[group.b]\nimages = [\"r.example/1\", \"r.example/2\"]\n"))
	if err != nil {
		t.Fatal(err)
	}
	for groups, want := range map[string]int{"": 2, "a": 1, "b": 2, "a b": 2} {
		if some, err := l.Only(strings.Fields(groups)); err != nil || len(some) != want {
			t.Errorf("%q: %d entries, %v", groups, len(some), err)
		}
	}
	if _, err := l.Only([]string{"a", "c"}); err == nil {
		t.Error("a group that is not there")
	}
}

func TestKeep(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for text, until := range map[string]string{"24h": "2026-01-02", "2026-06-01": "2026-06-01", "forever": "0001-01-01"} {
		k, err := parseKeep(text)
		if err != nil {
			t.Fatal(err)
		}
		kept := k.From(now)
		if kept == nil || kept.Until.Format(time.DateOnly) != until {
			t.Errorf("%s: %+v", text, kept)
		}
		if again, err := parseKeep(k.String()); err != nil || again != k {
			t.Errorf("%s: read back as %+v, %v", text, again, err)
		}
	}
	if k, _ := parseKeep("2025-12-31"); k.From(now) != nil {
		t.Error("one that is over keeps")
	}
}

// TestLock: what is locked is read back, by -f too, and is the same each time.
func TestLock(t *testing.T) {
	l, err := Parse("x", []byte("keep = \"24h\"\nplatforms = [\"amd64\", \"arm64\"]\n[group.g]\nimages = [\"r.example/a:1\", \"r.example/b\"]\n"))
	if err != nil {
		t.Fatal(err)
	}
	other := l.Entries[0]
	other.Platform = "linux/arm64"
	d, err := Parse("x", []byte("[[image]]\nname = \"r.example/a\"\ndigest = \""+digest+"\"\n"))
	if err != nil {
		t.Fatal(err)
	}
	l.Entries[0].Digest = d.Entries[0].Digest
	data, err := Encode(l.Entries)
	if err != nil {
		t.Fatal(err)
	}
	back, err := Parse("lock", data)
	if err != nil {
		t.Fatalf("%v\n%s", err, data)
	}
	if lines(back.Entries) != lines(l.Entries) {
		t.Errorf("read back as\n%s", lines(back.Entries))
	}
	lock := NewLock(back)
	if got := lock.Digest(l.Entries[0]); got != l.Entries[0].Digest {
		t.Errorf("locked %v", got)
	}
	if got := lock.Digest(other); !got.IsZero() {
		t.Errorf("the other platform has %v", got)
	}
	if again, err := Encode(back.Entries); err != nil || string(again) != string(data) {
		t.Errorf("written again it is another: %v\n%s", err, again)
	}
}

// TestSampleLists: what is packaged is read, and names BioContainers by version
// and build.
func TestSampleLists(t *testing.T) {
	files, err := filepath.Glob("../packaging/images/*")
	if err != nil || len(files) < 2 {
		t.Fatal(files, err)
	}
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		l, err := Parse(name, data)
		if err != nil || len(l.Entries) < 5 {
			t.Fatalf("%s: %v", name, err)
		}
		for _, e := range l.Entries {
			if !strings.HasPrefix(e.Name(), "quay.io/biocontainers/") || !strings.Contains(e.Ref.Tag(), "--") {
				t.Errorf("%s: %s", name, e.Name())
			}
		}
	}
}
