// Package checker asks the Slurm plugin's C (spank/check.c) what it thinks of
// values, for tests that want Berth's two readers of them to agree.
package checker

import (
	"bufio"
	"context"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// A Checker is a process that judges values of one kind.
type Checker struct {
	in  *bufio.Writer
	out *bufio.Reader
}

// New starts one for mounts, name or image; it ends with the test. Without a C
// compiler the test is skipped.
func New(t testing.TB, kind string) *Checker {
	t.Helper()
	if _, err := exec.LookPath("cc"); err != nil {
		t.Skip("no C compiler")
	}
	_, here, _, _ := runtime.Caller(0)
	root := filepath.Join(filepath.Dir(here), "..", "..")
	program := filepath.Join(t.TempDir(), "checker")
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	args := []string{
		"-std=gnu11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-I" + filepath.Join(root, "spank"), "-o", program,
		filepath.Join(root, "testdata/checker/program/checker.c"), filepath.Join(root, "spank/check.c"),
	}
	if text, err := exec.CommandContext(ctx, "cc", args...).CombinedOutput(); err != nil {
		t.Fatalf("compile the checker: %v\n%s", err, text)
	}
	cmd := exec.CommandContext(t.Context(), program, kind)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); _ = cmd.Wait() })
	return &Checker{bufio.NewWriter(in), bufio.NewReader(out)}
}

// Refuses returns what the plugin tells the user of value, "" if it takes it.
// value has no NUL.
func (c *Checker) Refuses(t testing.TB, value string) string {
	t.Helper()
	_, _ = c.in.WriteString(value + "\x00")
	if err := c.in.Flush(); err != nil {
		t.Fatal(err)
	}
	line, err := c.out.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	line = strings.TrimSuffix(line, "\n")
	if line == "ok" {
		return ""
	}
	return line
}
