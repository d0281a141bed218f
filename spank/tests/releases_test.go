package tests

import (
	"context"
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestReleases builds the plugin for two releases: the installed one, and one
// whose headers differ by their version. Each must say that it is for its own,
// because Slurm compares that number before it loads it.
func TestReleases(t *testing.T) {
	needSlurmHeaders(t)
	other := otherRelease(t)
	out := t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	text, err := exec.CommandContext(ctx, "../releases", out, "/opt/berth", slurmInclude(), other).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	plugins := strings.Fields(string(text))
	if len(plugins) != 2 || plugins[1] != filepath.Join(out, "slurm-99.11", "spank_berth.so") {
		t.Fatalf("built %q", plugins)
	}
	if v := pluginVersion(t, plugins[1]); v != 0x630b02 {
		t.Errorf("the plugin for 99.11.2 says %#x", v)
	}
	if v := pluginVersion(t, plugins[0]); v == 0x630b02 || v == 0 {
		t.Errorf("the plugin for the installed release says %#x", v)
	}
}

// otherRelease returns a folder with the installed headers as release 99.11.2.
func otherRelease(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if text, err := exec.CommandContext(t.Context(), "cp", "-rL", filepath.Join(slurmInclude(), "slurm"), dir).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	version := "#define SLURM_VERSION_STRING \"99.11.2\"\n#define SLURM_VERSION_NUMBER 0x630b02\n#define SLURM_VERSION_MAJOR \"99\"\n"
	if err := os.WriteFile(filepath.Join(dir, "slurm", "slurm_version.h"), []byte(version), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

// pluginVersion reads plugin_version, the number that Slurm compares, from the
// file: without Slurm's symbols it can't be loaded.
func pluginVersion(t *testing.T, plugin string) uint32 {
	t.Helper()
	f, err := elf.Open(plugin)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	symbols, err := f.DynamicSymbols()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range symbols {
		if s.Name != "plugin_version" {
			continue
		}
		section := f.Sections[s.Section]
		data := make([]byte, 4)
		if _, err := section.ReadAt(data, int64(s.Value-section.Addr)); err != nil {
			t.Fatal(err)
		}
		return f.ByteOrder.Uint32(data)
	}
	t.Fatalf("%s has no plugin_version", plugin)
	return 0
}
