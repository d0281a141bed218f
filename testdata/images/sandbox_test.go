package images

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The test binary is also the program that TestKilledBuildLeavesNothing kills.
const victim = "BERTH_TEST_BUILD_VICTIM"

func TestMain(m *testing.M) {
	if cache := os.Getenv(victim); cache != "" {
		if err := sleepInSandbox(context.Background(), cache); err != nil {
			os.Stderr.WriteString(err.Error())
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// sleepInSandbox begins a change of the base image that lasts ten minutes.
// Its files go to scratch; share/started is there once it has begun.
func sleepInSandbox(ctx context.Context, scratch string) error {
	b := Builder{Cache: CacheDir(), Log: os.Stderr}
	base, err := recipeNamed("base")
	if err != nil {
		return err
	}
	lower, err := b.tree(base)
	if err != nil {
		return err
	}
	return archive{scratch}.apply(ctx, filepath.Join(scratch, "work"), change{
		lower: lower, upper: filepath.Join(scratch, "upper"), share: filepath.Join(scratch, "share"),
		script: "touch started; sleep 600; exit 3",
	})
}

// eventually waits until ok, at most 20 s.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	limit, again := time.After(20*time.Second), time.NewTicker(10*time.Millisecond)
	defer again.Stop()
	for !ok() {
		select {
		case <-limit:
			t.Fatalf("waited 20 s: %s", what)
		case <-again.C:
		}
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// traces lists processes that were started for scratch, and all processes
// that see a mount there.
func traces(t *testing.T, scratch string) []string {
	t.Helper()
	var found []string
	for _, file := range []string{"environ", "mountinfo"} {
		paths, err := filepath.Glob("/proc/[0-9]*/" + file)
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			data, err := os.ReadFile(path) // fails when the process is gone
			if err == nil && bytes.Contains(data, []byte(scratch)) {
				found = append(found, path)
			}
		}
	}
	return found
}

func needBase(t *testing.T) {
	t.Helper()
	if err := canSandbox(); err != nil {
		t.Skip(err)
	}
	Layout(t, "base")
}

func TestKilledBuildLeavesNothing(t *testing.T) {
	needBase(t)
	scratch := t.TempDir()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), victim+"="+scratch)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the build begins", func() bool { return exists(filepath.Join(scratch, "share/started")) })
	if len(traces(t, scratch)) < 2 {
		t.Error("the running build was not seen: this test could not fail")
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed
	eventually(t, "its processes and mounts are gone", func() bool { return len(traces(t, scratch)) == 0 })
}

func TestCancelledBuildLeavesNothing(t *testing.T) {
	needBase(t)
	scratch := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- sleepInSandbox(ctx, scratch) }()
	eventually(t, "the build begins", func() bool { return exists(filepath.Join(scratch, "share/started")) })
	cancel()
	select {
	case err := <-done:
		if err == nil {
			t.Error("no error")
		}
	case <-time.After(20 * time.Second):
		t.Fatal("still running 20 s after it was cancelled")
	}
	eventually(t, "its processes and mounts are gone", func() bool { return len(traces(t, scratch)) == 0 })
}

func TestFailedScriptSaysWhy(t *testing.T) {
	needBase(t)
	scratch := t.TempDir()
	base, err := recipeNamed("base")
	if err != nil {
		t.Fatal(err)
	}
	lower, err := Builder{Cache: CacheDir()}.tree(base)
	if err != nil {
		t.Fatal(err)
	}
	err = archive{scratch}.apply(t.Context(), filepath.Join(scratch, "work"), change{
		lower: lower, upper: filepath.Join(scratch, "upper"), share: filepath.Join(scratch, "share"),
		script: "echo the cause >&2; exit 3",
	})
	if err == nil || !strings.Contains(err.Error(), "the cause") || !strings.Contains(err.Error(), "status 3") {
		t.Errorf("%v; want the status and what was said", err)
	}
}

func TestLockWaitsNoLongerThanItsContext(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	unlock, err := lock(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := lock(ctx, path); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("taken twice: %v", err)
	}
	unlock()
	again, err := lock(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	again()
}

func TestKeysDiffer(t *testing.T) {
	keys := map[string]string{}
	for _, r := range recipes() {
		key, err := r.key()
		if err != nil {
			t.Fatal(err)
		}
		if other, ok := keys[key]; ok {
			t.Errorf("%s and %s have one key", r.Name, other)
		}
		keys[key] = r.Name
		r.Packages = append(r.Packages, "one-more")
		if more, err := r.key(); err != nil || more == key {
			t.Errorf("%s: one more package, the same key (%v)", r.Name, err)
		}
	}
}
