package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
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
