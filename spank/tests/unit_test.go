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

const (
	pluginDir = ".."
	joinDir   = "../../launcher/join"
)

// compile builds a C program of the tests and returns its path.
func compile(t *testing.T, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out := filepath.Join(t.TempDir(), name)
	args = append([]string{
		"-std=gnu11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-g",
		"-I" + pluginDir, "-I" + joinDir, "-I" + slurmInclude(), "-o", out,
	}, args...)
	if text, err := exec.CommandContext(ctx, "cc", args...).CombinedOutput(); err != nil {
		t.Fatalf("compile %s: %v\n%s", name, err, text)
	}
	return out
}

func slurmInclude() string {
	if dir := os.Getenv("SLURM_INCLUDE"); dir != "" {
		return dir
	}
	return "/usr/include"
}

func needSlurmHeaders(t *testing.T) {
	t.Helper()
	if _, err := os.Stat(filepath.Join(slurmInclude(), "slurm", "spank.h")); err != nil {
		t.Skipf("no headers of Slurm (libslurm-dev): %v", err)
	}
}

// TestUnits runs each test of testdata/unit.c in a process of its own, because
// the plugin's options live as long as the process.
func TestUnits(t *testing.T) {
	needSlurmHeaders(t)
	unit := compileUnit(t)
	list, err := exec.CommandContext(t.Context(), unit, "list").Output()
	if err != nil {
		t.Fatal(err)
	}
	typed := map[string][]string{"options-script-line": {"--container-image=b"}}
	for _, name := range strings.Fields(string(list)) {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			cmd := exec.CommandContext(ctx, unit, append([]string{name}, typed[name]...)...)
			cmd.Env = append(os.Environ(), "ASAN_OPTIONS=detect_leaks=0")
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

func compileUnit(t *testing.T) string {
	t.Helper()
	args := []string{"-fsanitize=address,undefined", "testdata/unit.c", joinDir + "/join.c", joinDir + "/filter.c", joinDir + "/wire.c"}
	for _, part := range []string{"options", "cmdline", "check", "request", "failure", "child", "login", "config", "pytorch"} {
		args = append(args, filepath.Join(pluginDir, part+".c"))
	}
	return compile(t, "unit", args...)
}

// TestExports: Slurm sees its hooks, and no other symbol can meet another
// plugin's.
func TestExports(t *testing.T) {
	needSlurmHeaders(t)
	plugin := buildPlugin(t)
	out, err := exec.CommandContext(t.Context(), "nm", "-D", "--defined-only", plugin).Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line)
		name := fields[len(fields)-1]
		if !strings.HasPrefix(name, "slurm_spank_") && !strings.HasPrefix(name, "plugin_") && name != "spank_plugin_version" {
			t.Errorf("exports %s", name)
		}
	}
}

// TestHardening: what the linker was told for the programs that run with root's
// power or in everybody's srun.
func TestHardening(t *testing.T) {
	needSlurmHeaders(t)
	for program, want := range map[string][]string{
		buildPlugin(t): {"GNU_RELRO", "BIND_NOW", "__stack_chk_fail", "__snprintf_chk"},
		buildJoin(t):   {"GNU_RELRO"},
	} {
		out, err := exec.CommandContext(t.Context(), "readelf", "-W", "-l", "-d", "--dyn-syms", program).Output()
		if err != nil {
			t.Fatal(err)
		}
		text := string(out)
		for _, part := range want {
			if !strings.Contains(text, part) {
				t.Errorf("%s: no %s", program, part)
			}
		}
		if !regexp.MustCompile(`GNU_STACK .* RW +0x`).MatchString(text) || regexp.MustCompile(`LOAD .* RWE `).MatchString(text) {
			t.Errorf("%s: memory that can be written and run:\n%s", program, text)
		}
	}
}

// buildPlugin builds the plugin with its own Makefile and returns its path.
func buildPlugin(t *testing.T) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	build := t.TempDir()
	if text, err := exec.CommandContext(ctx, "make", "-s", "-C", pluginDir, "BUILD="+build, "SANITIZE=1").CombinedOutput(); err != nil {
		t.Fatalf("build the plugin: %v\n%s", err, text)
	}
	return filepath.Join(build, "lib", "berth", "spank_berth.so")
}
