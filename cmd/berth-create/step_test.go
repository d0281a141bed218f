package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/berth-hpc/berth/prolog/jobstate"
)

// The run folder is memory, and users can cause what is logged there.
func TestLogIsBounded(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "step.log")
	if err := os.WriteFile(path, []byte(strings.Repeat("x", maxLog+1)), 0o600); err != nil {
		t.Fatal(err)
	}
	openLog(dir).Error("one line")
	st, err := os.Stat(path)
	if err != nil || st.Size() > 1000 || st.Size() == 0 {
		t.Errorf("%v bytes, %v", st.Size(), err)
	}
	openLog(filepath.Join(dir, "missing")).Error("a node without a run folder")
}

// Root reads an image's config without parsing it, and not without a bound.
func TestConfigIsBounded(t *testing.T) {
	dir := t.TempDir()
	i := &image{ready: jobstate.Ready{Dir: dir}}
	if err := os.WriteFile(i.ready.Config(), []byte(strings.Repeat(" ", maxConfig+1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := i.Config(); err == nil {
		t.Error("read a config that is too large")
	}
}
