package tests

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestFuzzTargets runs the fuzz targets of testdata/fuzz on what is kept there
// and on inputs made of that, the same ones each time; `make fuzz` searches
// further.
func TestFuzzTargets(t *testing.T) {
	needSlurmHeaders(t)
	sources, err := filepath.Glob("testdata/fuzz/*.c")
	if err != nil || len(sources) < 2 {
		t.Fatalf("targets %q, %v", sources, err)
	}
	for _, source := range sources {
		name := strings.TrimSuffix(filepath.Base(source), ".c")
		if name == "standalone" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			runTarget(t, source, name)
		})
	}
}

func runTarget(t *testing.T, source, name string) {
	t.Helper()
	text, err := os.ReadFile(source)
	if err != nil {
		t.Fatal(err)
	}
	args := []string{
		"-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-O1",
		"-I" + filepath.Join(pluginDir, "client"), source, "testdata/fuzz/standalone.c",
	}
	if m := regexp.MustCompile(`(?m)^ \* link: (.*)$`).FindSubmatch(text); m != nil {
		args = append(args, strings.Fields(string(m[1]))...)
	}
	inputs, err := filepath.Glob("testdata/fuzz/" + name + "/*")
	if err != nil || len(inputs) == 0 {
		t.Fatalf("inputs %q, %v", inputs, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, compile(t, name, args...), append([]string{"5000"}, inputs...)...)
	cmd.Env = append(os.Environ(), "ASAN_OPTIONS=abort_on_error=1", "UBSAN_OPTIONS=abort_on_error=1:print_stacktrace=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
