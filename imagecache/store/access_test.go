package store

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// publishFrom publishes d as pulled from o.
func publishFrom(t *testing.T, s *Store, d Digest, o Origin) Image {
	t.Helper()
	l, err := s.Lock(testContext(t), d, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Release()
	dir, err := l.TempDir(os.Geteuid(), os.Getegid())
	if err != nil {
		t.Fatal(err)
	}
	if err := stage(dir, d); err != nil {
		t.Fatal(err)
	}
	work, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer work.Close()
	im, err := s.Publish(Work{Folder: work, Stager: os.Geteuid(), Private: !o.Public, Origin: &o}, d)
	if err != nil {
		t.Fatal(err)
	}
	return im
}

// wantAccess compares who may use im with what its folder lets others do.
func wantAccess(t *testing.T, im Image, public bool, repositories string) {
	t.Helper()
	a, err := im.Access()
	if err != nil {
		t.Fatal(err)
	}
	var have []string
	for _, o := range a.Origins {
		have = append(have, o.Registry+"/"+o.Repository)
		if !a.Has(o.Registry, o.Repository) || a.Has(o.Registry, o.Repository+"x") || a.Has("x"+o.Registry, o.Repository) {
			t.Errorf("%+v", a)
		}
	}
	if a.Public != public || strings.Join(have, " ") != repositories {
		t.Errorf("public %v, %q; want %v, %q", a.Public, have, public, repositories)
	}
	info, err := os.Stat(im.Dir())
	if err != nil || (info.Mode().Perm() == 0o700) == public {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

func TestAccess(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: a user's own store is closed to others altogether")
	}
	s := open(t)
	im := publishFrom(t, s, digest('a'), Origin{Registry: "r", Repository: "alice/x"})
	wantAccess(t, im, false, "r/alice/x")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(im.AddOrigin(Origin{Registry: "r", Repository: "bob/x"}, "r/bob/x:1"))
	must(im.AddOrigin(Origin{Registry: "r", Repository: "bob/x"}, "r/bob/x:1"))
	wantAccess(t, im, false, "r/alice/x r/bob/x")
	if r, err := im.Record(); err != nil || strings.Join(r.References, " ") != "r r/bob/x:1" {
		t.Errorf("%+v, %v", r, err)
	}
	must(im.AddOrigin(Origin{Registry: "q", Repository: "x", Public: true}, "q/x:1"))
	wantAccess(t, im, true, "")
	if r, err := im.Record(); err != nil || strings.Join(r.References, " ") != "q/x:1" || len(r.Origins) != 1 || r.Source != "q" {
		t.Errorf("what everybody may read names others' repositories: %+v, %v", r, err)
	}
	wantAccess(t, publishFrom(t, s, digest('b'), Origin{Registry: "q", Repository: "x", Public: true}), true, "")
	must(os.RemoveAll(im.Dir()))
	if _, err := im.Access(); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	if err := im.AddOrigin(Origin{Public: true}, "x"); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	if left, _ := filepath.Glob(filepath.Join(s.newDir(), "*")); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}

// Who may read the folder may use the image, and a folder without a record
// lets nobody in.
func TestAccessOfWhatIsMissing(t *testing.T) {
	s := open(t)
	im := publishFrom(t, s, digest('a'), Origin{Registry: "r", Repository: "x"})
	if err := os.Remove(filepath.Join(im.Dir(), RecordName)); err != nil {
		t.Fatal(err)
	}
	if a, err := im.Access(); err == nil || a.Public {
		t.Errorf("%+v, %v", a, err)
	}
	if (Access{}).Public || (Access{}).Has("", "") {
		t.Error("the zero Access lets somebody in")
	}
}
