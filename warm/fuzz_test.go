package warm

import (
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"github.com/berth-hpc/berth/imagecache"
)

// FuzzList: a list that is read is written as a lock file that says the same,
// and that file, read and written, is itself.
func FuzzList(f *testing.F) {
	f.Add("# comment\nquay.io/biocontainers/samtools:1.20 # why\n\ndebian\n")
	f.Add("keep = '720h'\nplatforms = ['linux/arm64', 'amd64']\n[[image]]\nname = 'debian:12'\nplatforms = ['x86_64']\ngroups = ['a','b']\nkeep = '2027-01-31'\ndigest = 'sha256:" + strings.Repeat("0a", 32) + "'\n[group.rna]\nimages = ['quay.io/a/b:1', 'debian:12']\nkeep = 'forever'\n")
	f.Add("[[image]]\nname = 'me@quay.io#a/b'\nkeep = '2027-01-31T10:00:00.5+02:00'\n")
	f.Add("[group.\"a b\"]\nimages=['a']\n[group.c]\nimages=['a']")
	f.Fuzz(func(t *testing.T, text string) {
		l, err := Parse("list", []byte(text))
		if err != nil {
			if strings.ContainsAny(err.Error(), "\x1b\n") {
				t.Errorf("%q", err)
			}
			return
		}
		checkEntries(t, l)
		if len(l.Entries) == 0 {
			return
		}
		locked, err := Encode(l.Entries)
		if err != nil {
			t.Fatal(err)
		}
		again, err := Parse("lock", locked)
		if err != nil {
			t.Fatalf("%v of\n%s", err, locked)
		}
		if diff := cmp.Diff(said(l), said(again)); diff != "" {
			t.Errorf("%s\nof\n%s", diff, locked)
		}
		if twice, err := Encode(again.Entries); err != nil || string(twice) != string(locked) {
			t.Errorf("%v: %s", err, cmp.Diff(string(locked), string(twice)))
		}
		lock := NewLock(again)
		for _, e := range l.Entries {
			if lock.Digest(e) != e.Digest {
				t.Errorf("%s is locked to %s, not %s", e.Name(), lock.Digest(e), e.Digest)
			}
		}
	})
}

// said is what a list says, but for where.
func said(l *List) []string {
	var all []string
	for _, e := range l.Entries {
		all = append(all, strings.Join([]string{e.Name(), e.Platform, e.Digest.String(), e.Keep.String(), strings.Join(e.Groups, "|")}, " "))
	}
	return all
}

func checkEntries(t *testing.T, l *List) {
	t.Helper()
	seen := map[lockKey]bool{}
	for _, e := range l.Entries {
		key := lockKey{e.Name(), e.Platform}
		if seen[key] || e.Ref.Kind() != imagecache.Registry || e.From == "" || strings.ContainsAny(e.Name()+e.Platform, "\x1b\n ") {
			t.Errorf("%+v", e)
		}
		seen[key] = true
	}
}

// FuzzParsers: what a workflow or a queue names are images of registries, each
// once, within bounds, with the line where it stands; what is unclear is one
// line of text.
func FuzzParsers(f *testing.F) {
	f.Add("process { container = \"${a ? 'b' : 'c'}\" }\n\"\"\"\n'''")
	f.Add("process {\n  withName: X { container = 'quay.io/a/b:1' }\n}\nincludeConfig 'a.nf'\ndocker.registry = 'quay.io'\n")
	f.Add("rule a:\n  container: \"docker://x\"\n\"\"\" # '")
	f.Add("include: \"a.smk\"\nrule a:\n    container: 'docker://quay.io/a/b:1'\n    conda: \"x\"\n")
	f.Add("1 2 3 berth=a@sha256:x\n[[image]]\nname=\"a\"")
	f.Add("JOBID UID GID ADMIN_COMMENT\n1 2 3 berth=debian\n2 2 3 x berth=quay.io/a/b:1 y\n3 4 5 berth=debian\n")
	f.Fuzz(func(t *testing.T, text string) {
		for _, name := range []string{"a.nf", "nextflow.config", "Snakefile", "list"} {
			files := fstest.MapFS{name: &fstest.MapFile{Data: []byte(text)}, "a.smk": &fstest.MapFile{Data: []byte(text)}}
			l, err := FromWorkflow(files, name)
			if err != nil {
				continue
			}
			checkEntries(t, l)
			for _, u := range l.Unclear {
				if strings.ContainsAny(u, "\n\r") || !strings.Contains(u, ":") {
					t.Errorf("%s: unclear: %q", name, u)
				}
			}
		}
		bounds := Bounds{Images: 5, PerUser: 2}
		jobs, skipped := ParseQueue(text, bounds)
		perUser := map[string]int{}
		for _, j := range jobs {
			if perUser[j.UID]++; perUser[j.UID] > bounds.PerUser || j.Entry.Ref.Kind() != imagecache.Registry || strings.Trim(j.UID+j.GID, "0123456789") != "" {
				t.Errorf("%+v", j)
			}
		}
		if len(jobs) > bounds.Images || skipped > strings.Count(text, "\n")+1 {
			t.Errorf("%d jobs, %d skipped", len(jobs), skipped)
		}
	})
}
