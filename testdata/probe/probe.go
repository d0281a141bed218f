// Package probe builds program/probe.c, by which tests compare what a process in a
// container has with what one outside of it has.
package probe

import (
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
)

// Build compiles the program, static so that it runs in every image, and
// returns where it is.
func Build(tb testing.TB) string {
	tb.Helper()
	_, self, _, _ := runtime.Caller(0)
	out := filepath.Join(tb.TempDir(), "probe")
	cmd := exec.CommandContext(tb.Context(), "cc", "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-D_GNU_SOURCE",
		"-static", "-o", out, filepath.Join(filepath.Dir(self), "program", "probe.c"))
	if text, err := cmd.CombinedOutput(); err != nil {
		tb.Fatalf("compile probe.c: %v\n%s", err, text)
	}
	return out
}
