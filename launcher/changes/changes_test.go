package changes

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/imagecache/store"
)

func record(t *testing.T, name string) Record {
	t.Helper()
	d, err := store.ParseDigest("sha256:" + strings.Repeat("a", 64))
	must(t, err)
	return Record{Name: name, Digest: d, Reference: "docker.io/library/x:1", Created: time.Unix(1, 0).UTC()}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func make1(t *testing.T, cs Containers, name string) (*Container, *Lock) {
	t.Helper()
	c, l, err := cs.Make(t.Context(), record(t, name))
	must(t, err)
	return c, l
}

func TestNames(t *testing.T) {
	for name, ok := range map[string]bool{
		"a": true, "A_b.c-9": true, strings.Repeat("x", maxName): true,
		"": false, ".": false, "..": false, ".hidden": false, "-rf": false, "a/b": false, "a b": false, "ä": false, "a\n": false,
		strings.Repeat("x", maxName+1): false,
	} {
		if err := CheckName(name); (err == nil) != ok {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, get := range []string{"../x", "nosuch"} {
		if _, err := In(t.TempDir()).Get(get); fault.Of(err) != fault.User || fault.Remedy(err) == "" {
			t.Errorf("%s: %v", get, err)
		}
	}
}

func TestMakeListRemove(t *testing.T) {
	cs := In(t.TempDir())
	if list, err := cs.List(); err != nil || len(list) != 0 {
		t.Errorf("%v, %v", list, err)
	}
	c, l := make1(t, cs, "b")
	make1(t, cs, "a")
	again, err := cs.Get("b")
	if err != nil || again.Record != c.Record {
		t.Errorf("%+v, want %+v: %v", again, c.Record, err)
	}
	deep := filepath.Join(c.Upper(), "closed/deep")
	must(t, os.MkdirAll(deep, 0o755))
	must(t, os.WriteFile(filepath.Join(deep, "file"), make([]byte, 10_000), 0o600))
	if n, err := c.Size(); err != nil || n < 10_000 {
		t.Errorf("%d bytes, %v", n, err)
	}
	must(t, os.Chmod(deep, 0))
	must(t, os.Chmod(filepath.Dir(deep), 0))
	must(t, c.Remove())
	must(t, l.Release())
	list, err := cs.List()
	if err != nil || len(list) != 1 || list[0].Name != "a" {
		t.Errorf("%v, %v", list, err)
	}
	entries, err := os.ReadDir(cs.dir)
	must(t, err)
	if len(entries) != 1 {
		t.Errorf("left: %v", entries)
	}
}

// Of many who make or use one container at once, one has it.
func TestOneAtATime(t *testing.T) {
	cs := In(t.TempDir())
	var mu sync.Mutex
	var held []*Lock
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			_, l, err := cs.Make(t.Context(), record(t, "x"))
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				held = append(held, l)
			case !errors.Is(err, ErrInUse):
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if len(held) != 1 {
		t.Fatalf("%d have the container", len(held))
	}
	c, err := cs.Get("x")
	must(t, err)
	if !c.InUse() {
		t.Error("it is not in use")
	}
	must(t, held[0].Release())
	if c.InUse() {
		t.Error("it is still in use")
	}
	l, err := c.Lock(t.Context())
	must(t, err)
	late, err := openLock(c.dir) // before it is removed
	must(t, err)
	must(t, c.Remove())
	must(t, l.Release())
	if err := c.take(late); !errors.Is(err, ErrInUse) {
		t.Errorf("a container can be locked that was removed meanwhile: %v", err)
	}
	if _, err := c.Lock(t.Context()); !errors.Is(err, ErrInUse) || fault.Remedy(err) == "" {
		t.Errorf("a removed container can be locked: %v", err)
	}
	must(t, late.Release())
}

// Who has to wait stops with their context.
func TestLockEndsWithItsContext(t *testing.T) {
	cs := In(t.TempDir())
	c, l := make1(t, cs, "x")
	defer func() { _ = l.Release() }()
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("enough")
	cancel(cause)
	if _, err := c.Lock(ctx); !errors.Is(err, cause) {
		t.Errorf("%v", err)
	}
}

// Mount points are removed by the next who takes the lock, but for what is not
// empty any more, and whatever the list says stays within the changes.
func TestMountPointsAreRemoved(t *testing.T) {
	cs := In(t.TempDir())
	c, l := make1(t, cs, "x")
	was := time.Unix(1_600_000_000, 0)
	for _, dir := range []string{"own/a/b", "own/used", "mine"} {
		must(t, os.MkdirAll(filepath.Join(c.Upper(), dir), 0o755))
	}
	for name, text := range map[string]string{"own/file": "", "own/used/x": "x", "own/text": "text", "../outside": ""} {
		must(t, os.WriteFile(filepath.Join(c.Upper(), name), []byte(text), 0o644))
	}
	must(t, os.Symlink("..", filepath.Join(c.Upper(), "up")))
	must(t, os.Chtimes(filepath.Join(c.Upper(), "own"), was, was))
	must(t, NotePoints(c.Dir(), []string{"own/a", "own/a/b", "own/used", "own/file", "own/text", "own/gone", "../outside", "up/outside"}))
	must(t, l.Release())
	l, err := c.Lock(t.Context())
	must(t, err)
	defer func() { _ = l.Release() }()
	var left []string
	must(t, filepath.WalkDir(c.Upper(), func(path string, _ os.DirEntry, err error) error {
		rel, _ := filepath.Rel(c.Upper(), path)
		left = append(left, rel)
		return err
	}))
	if want := []string{".", "mine", "own", "own/text", "own/used", "own/used/x", "up"}; !slices.Equal(left, want) {
		t.Errorf("left %q, want %q", left, want)
	}
	if _, err := os.Stat(filepath.Join(c.Dir(), "outside")); err != nil {
		t.Errorf("a file outside: %v", err)
	}
	if info, err := os.Stat(filepath.Join(c.Upper(), "own")); err != nil || !info.ModTime().Equal(was) {
		t.Errorf("the folder's time is another: %v", err)
	}
}

// What was left by somebody who was killed goes, later; what somebody is
// making stays.
func TestSweep(t *testing.T) {
	cs := In(t.TempDir())
	make1(t, cs, "x")
	old := time.Now().Add(-time.Hour)
	for _, name := range []string{".new-old", ".new-held", ".new-young", ".gone-old"} {
		must(t, os.MkdirAll(filepath.Join(cs.dir, name, "upper"), 0o755))
	}
	l, err := openLock(filepath.Join(cs.dir, ".new-held"))
	must(t, err)
	if _, err := l.try(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{".new-old", ".new-held", ".gone-old"} {
		must(t, os.Chtimes(filepath.Join(cs.dir, name), old, old))
	}
	cs.Sweep()
	entries, err := os.ReadDir(cs.dir)
	must(t, err)
	var left []string
	for _, e := range entries {
		left = append(left, e.Name())
	}
	if want := []string{".new-held", ".new-young", "x"}; !slices.Equal(left, want) {
		t.Errorf("left %q, want %q", left, want)
	}
	must(t, l.Release())
}

func TestPathsInMountinfo(t *testing.T) {
	for text, want := range map[string]string{
		`/a\134\054b\134:c\040d\134\134e/u`: `/a,b:c d\e/u`, // as Linux 6.18 writes it
		"/a/b":                              "/a/b", `/a\040b`: "/a b", `/a\134:b`: "/a:b", `/a\134,b`: "/a,b", `/x\`: `/x\`, `/\134\134`: `/\`,
	} {
		if got := plain(text); got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
	info := filepath.Join(t.TempDir(), "mountinfo")
	must(t, os.WriteFile(info, []byte(`23 1 0:5 / /proc rw - proc proc rw
65 43 0:39 / / rw,relatime - overlay overlay rw,lowerdir=/a:/b,upperdir=/h\040me/containers/x/upper,workdir=/w,userxattr
`), 0o644))
	if !mounts(info, "/h me/containers/x/upper") || mounts(info, "/h me/containers/x") || mounts(info+"none", "/") {
		t.Error("the mount is not recognised, or another is")
	}
}
