package images

import (
	"context"
	"errors"
	"io"
	"path/filepath"
	"testing"
	"time"
)

// buildLimit bounds a build for a test; all images together took 70 s on two
// cores with a near mirror.
const buildLimit = 10 * time.Minute

// Layout returns the folder of an image's OCI layout (its tag is Tag) and
// builds it when it is missing. The test is skipped, with the reason, where
// that can't be done: without root, mmdebstrap, or Debian's archive. What is
// in the cache already can be used by every user.
func Layout(t testing.TB, name string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), buildLimit)
	defer cancel()
	b := Builder{Cache: CacheDir(), Log: lines{t}}
	need(t, b.Build(ctx, name))
	dir, err := filepath.EvalSymlinks(LayoutDir(b.Cache, name))
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// Tree returns the folders of an image's root file system, uppermost first, as
// overlayfs takes them, and builds it or skips the test as Layout does. Nobody
// may change what is in them.
func Tree(t testing.TB, name string) []string {
	t.Helper()
	Layout(t, name)
	r, err := recipeNamed(name)
	if err != nil {
		t.Fatal(err)
	}
	dirs, err := Builder{Cache: CacheDir(), Log: lines{t}}.tree(r)
	need(t, err)
	return dirs
}

// DataDir returns the folder with db/ and reads/ (see Builder.Data) and makes
// it when it is missing, or skips the test as Layout does.
func DataDir(t testing.TB) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), buildLimit)
	defer cancel()
	b := Builder{Cache: CacheDir(), Log: lines{t}}
	need(t, b.Data(ctx))
	return b.Cache
}

// Repository returns the folder of an apt repository with these packages and
// what they need over the image base (see Builder.Repository), or skips the
// test as Layout does.
func Repository(t testing.TB, packages ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), buildLimit)
	defer cancel()
	dir, err := Builder{Cache: CacheDir(), Log: lines{t}}.Repository(ctx, packages...)
	need(t, err)
	return dir
}

func need(t testing.TB, err error) {
	t.Helper()
	if errors.Is(err, ErrCannot) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// lines writes to a test's log.
type lines struct{ t testing.TB }

var _ io.Writer = lines{}

func (l lines) Write(p []byte) (int, error) {
	l.t.Log(string(p))
	return len(p), nil
}
