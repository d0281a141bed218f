package step

import (
	"errors"
	"os"
	"slices"
	"testing"

	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/launcher"
	"github.com/berth-hpc/berth/launcher/wire"
)

// What the container is saved from goes to the task that saves, and to no other.
func TestOneTaskSaves(t *testing.T) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	users := &launcher.UserNamespaces{Outer: null, Inner: null}
	c := &container{Container: &launcher.Container{Mount: null, Result: null}, users: users, saved: &saved{reference: "x:1", digest: "sha256:0", changes: null, config: null}}
	a := newAnswer(c, kind{}, nil)
	for saves, want := range map[bool][]string{true: {"changes", "config"}, false: nil} {
		data, files, err := a.to(saves)
		m, _ := wire.Decode(data)
		if err != nil || !slices.Equal(m.All("saved"), want) || len(files) != 4+len(want) || (m.Get("save_image") != "") != saves {
			t.Errorf("saves %v: %q with %d files, %v", saves, m, len(files), err)
		}
	}
}

func TestSavedStepIsOnOneNode(t *testing.T) {
	for nodes, good := range map[int]bool{0: true, 1: true, 2: false} {
		r := &Request{Nodes: nodes, Save: "x"}
		if err := r.checkSave(); (err == nil) != good || err != nil && fault.Of(err) != fault.User {
			t.Errorf("%d nodes: %v", nodes, err)
		}
		if !r.writable(Settings{}) {
			t.Error("what is to be saved is not writable")
		}
		r.Save = ""
		if err := r.checkSave(); err != nil {
			t.Error(err)
		}
	}
}

// Files of the user's own are not opened here.
func TestFileImageIsOpenedByItsUser(t *testing.T) {
	r := &Request{Image: "./x.sqsh", Save: "y"}
	s, err := newSaved(r, &view{job: launcher.Job{Dir: "/job"}}, &launcher.Container{}, nil)
	if err != nil || s.reference != "/job/x.sqsh" || s.base != nil || s.config != nil {
		t.Errorf("%+v, %v", s, err)
	}
	if s, err := newSaved(&Request{Image: "x"}, nil, nil, nil); s != nil || err != nil {
		t.Errorf("%+v, %v", s, err)
	}
	if _, err := newSaved(&Request{Image: "x", Save: "y"}, nil, &launcher.Container{}, gone{}); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

type gone struct{ Image }

func (gone) Digest() string { return "sha256:0" }

func (gone) Squashfs() (*os.File, error) { return nil, os.ErrNotExist }
