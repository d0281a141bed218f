package main

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/berth-hpc/berth/cmd/internal/config"
	"github.com/berth-hpc/berth/launcher/changes"
)

// The containers of a user's jobs are found, but not where somebody else could
// have put them; those that have expired are gone.
func TestContainersOfJobs(t *testing.T) {
	top := t.TempDir()
	cfg := &config.Config{Container: config.Container{NamesDir: top + "/%u", NamesExpiry: time.Hour}}
	me := account{uid: os.Geteuid(), name: "alice"}
	folder := filepath.Join(top, "alice")
	if places := me.jobNames(cfg); places != nil {
		t.Errorf("without a folder: %v", places)
	}
	for _, dir := range []string{folder, filepath.Join(folder, "job-7")} {
		for _, name := range []string{"old", "new"} {
			r := changes.Record{Name: name + filepath.Base(dir), Reference: "/x.sqsh"}
			c, lock, err := changes.In(dir).Make(t.Context(), r)
			if err != nil {
				t.Fatal(err)
			}
			past := time.Now().Add(-2 * time.Hour)
			if name == "old" {
				err = os.Chtimes(filepath.Join(c.Dir(), "lock"), past, past)
			}
			if err := errors.Join(err, lock.Release()); err != nil {
				t.Fatal(err)
			}
		}
	}
	places := append([]changes.Containers{changes.In(t.TempDir())}, me.jobNames(cfg)...)
	for name, there := range map[string]bool{"oldalice": false, "newalice": true, "oldjob-7": true, "newjob-7": true} {
		c, own, err := findContainer(places, name)
		if (err == nil) != there || own || there && c.Reference != "/x.sqsh" {
			t.Errorf("%s: %+v, %v, %v", name, c, own, err)
		}
	}
	if err := os.Chmod(folder, 0o777); err != nil {
		t.Fatal(err)
	}
	if places := me.jobNames(cfg); places != nil {
		t.Error("a folder in which others can put containers is looked into")
	}
}
