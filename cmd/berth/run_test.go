package main

import (
	"context"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/berth-hpc/berth/testdata/images"
	"github.com/berth-hpc/berth/testdata/registry/server"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"
)

// TestRunScripts runs testdata/run/*.txtar: what TestScripts gives them, and
// shell:v1 in the registry, an image with busybox. The tools in libexec are
// built from this checkout. As root it does so twice: with a /dev/fuse for
// everyone, and with one for root alone, where images must be unpacked.
func TestRunScripts(t *testing.T) { testRunning(t, "testdata/run") }

// TestExecScripts does so for scripts that look at all that runs: one after
// the other, and nothing else of the user's beside them.
func TestExecScripts(t *testing.T) {
	scripts, err := filepath.Glob("testdata/exec/*.txtar")
	if err != nil || len(scripts) == 0 {
		t.Fatal(scripts, err)
	}
	for _, script := range scripts {
		testRunning(t, script)
	}
}

// fuseModes are the modes of /dev/fuse with which scripts run, by what they
// make of images.
func fuseModes() map[string]string {
	if os.Getuid() != 0 {
		return map[string]string{"asis": ""}
	}
	return map[string]string{"mounted": "666", "unpacked": "600"}
}

// testRunning runs scripts in a folder, or one.
func testRunning(t *testing.T, from string) {
	t.Helper()
	shell, err := images.ReadLayout(images.Layout(t, "tiny"), images.Tag)
	if err != nil {
		t.Fatal(err)
	}
	libexec := buildTools(t)
	for name, mode := range fuseModes() {
		t.Run(name, func(t *testing.T) {
			t.Run("scripts", func(t *testing.T) { runScripts(t, from, shell, libexec, mode) })
			nothingRuns(t)
		})
	}
}

// TestInstallScripts runs testdata/install/*.txtar: as TestRunScripts, with
// the image base (Debian) at $BASE and folders of packages for it at
// $PACKAGES and $RPM.
func TestInstallScripts(t *testing.T) {
	shell, err := images.ReadLayout(images.Layout(t, "tiny"), images.Tag)
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("BASE", "oci:"+images.Layout(t, "base"))
	t.Setenv("PACKAGES", images.Repository(t, images.OwnerPackages()...))
	t.Setenv("RPM", images.Repository(t, images.RPMPackages()...))
	runScripts(t, "testdata/install", shell, buildTools(t), "666")
}

// runScripts runs scripts, which may have more words than others.
func runScripts(t *testing.T, from string, shell v1.Image, libexec, fuseMode string, more ...scriptWords) {
	words := scriptWords(commands())
	for _, m := range more {
		maps.Copy(words, m)
	}
	dir, files := from, []string(nil)
	if filepath.Ext(from) != "" {
		dir, files = "", []string{from}
	}
	testscript.Run(t, testscript.Params{
		Dir: dir, Files: files, Condition: condition,
		Cmds: words,
		Setup: func(env *testscript.Env) error {
			env.Setenv("BERTH_LIBEXEC", libexec)
			env.Setenv("FUSE_MODE", fuseMode)
			for _, name := range []string{"BASE", "PACKAGES", "RPM", "BARE", "PROBE"} {
				env.Setenv(name, os.Getenv(name))
			}
			env.Setenv("BERTH_CONTAINER_IDLE_TIMEOUT", "0s") // but in reuse.txtar
			if err := setUp(env); err != nil {
				return err
			}
			if err := giveHome(env); err != nil {
				return err
			}
			reg := env.Values["registry"].(*server.Started)
			_, err := images.Push(t.Context(), reg.Host, "shell:v1", shell)
			reg.Forget()
			return err
		},
	})
}

// scriptWords are what scripts can say.
type scriptWords map[string]func(ts *testscript.TestScript, neg bool, args []string)

// giveHome makes $HOME a folder that no default mount shows in a container.
// Only root can make one; others keep theirs below the work folder.
func giveHome(env *testscript.Env) error {
	if os.Getuid() != 0 {
		return nil
	}
	home, err := os.MkdirTemp("/home", "berth-test-")
	if err != nil {
		return err
	}
	env.Defer(func() { _ = os.RemoveAll(home) })
	env.Setenv("HOME", home)
	return os.Chown(home, testUID, testUID)
}

// nothingRuns waits until no process of the scripts' user is left. The FUSE
// server of a container ends a moment after its last task.
func nothingRuns(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		return // the user has other processes
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(90 * time.Second) // containers that stand ready do so for a minute
	for left := processes(t); len(left) > 0; left = processes(t) {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("still running: %q", left)
		}
	}
}

// processes lists the commands of the scripts' user, but for dead ones that
// nobody has waited for.
func processes(t *testing.T) []string {
	t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, stat := range stats {
		var st unix.Stat_t
		text, err := os.ReadFile(stat)
		if err != nil || unix.Stat(filepath.Dir(stat), &st) != nil || st.Uid != testUID {
			continue // gone, or another's
		}
		if !strings.Contains(string(text), ") Z ") {
			all = append(all, string(text[:min(40, len(text))]))
		}
	}
	return all
}

// buildTools returns a folder with berth-create and berth-join.
func buildTools(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{filepath.Dir(dir), dir} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	libexec := filepath.Join(dir, "libexec", "berth")
	for _, args := range [][]string{
		{"go", "build", "-o", libexec + "/", "../berth-create"},
		{"make", "-s", "-C", "../../launcher/join", "BUILD=" + dir, "SANITIZE=1"},
	} {
		if out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%q: %v\n%s", args, err, out)
		}
	}
	return libexec
}
