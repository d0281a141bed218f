package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berth-hpc/berth/fault"
)

// accountID stands for the account that pulls on managed nodes.
const accountID = 59872

// killEnv makes the test binary publish an image into the store it names and
// die after the step in stepEnv.
const (
	killEnv = "BERTH_TEST_PUBLISH"
	stepEnv = "BERTH_TEST_STEP"
)

func TestMain(m *testing.M) {
	if root := os.Getenv(killEnv); root != "" {
		fmt.Println(publishAndDie(root, os.Getenv(stepEnv)))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func publishAndDie(root, at string) error {
	s, err := Open(root)
	if err != nil {
		return err
	}
	s.step = func(step string) {
		if step == at {
			_ = unix.Kill(os.Getpid(), unix.SIGKILL)
			select {}
		}
	}
	_, err = publishNew(context.Background(), s, digest('a'))
	return err
}

func digest(c byte) Digest {
	d, err := ParseDigest("sha256:" + strings.Repeat(string(c), 64))
	if err != nil {
		panic(err)
	}
	return d
}

// publishNew does all that a pull does with a store.
func publishNew(ctx context.Context, s *Store, d Digest) (Image, error) {
	l, err := s.Lock(ctx, d, nil)
	if err != nil {
		return Image{}, err
	}
	defer l.Release()
	dir, err := l.TempDir(os.Geteuid(), os.Getegid())
	if err != nil {
		return Image{}, err
	}
	if err := stage(dir, d); err != nil {
		return Image{}, err
	}
	work, err := os.Open(dir)
	if err != nil {
		return Image{}, err
	}
	defer work.Close()
	return s.Publish(Work{Folder: work, Stager: os.Geteuid()}, d)
}

// stage writes what a conversion leaves.
func stage(dir string, d Digest) error {
	return errors.Join(
		os.WriteFile(filepath.Join(dir, RootfsName), []byte("squashfs"), 0o600),
		WriteJSON(filepath.Join(dir, ConfigName), 0o600, Manifest{Digest: d, OS: "linux", Config: Config{Env: []string{"A=B"}}}),
		WriteJSON(filepath.Join(dir, RecordName), 0o600, Record{Digest: d, References: []string{"r"}}))
}

func open(t *testing.T) *Store {
	t.Helper()
	s, err := Open(filepath.Join(t.TempDir(), "store"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestPublishAndGet(t *testing.T) {
	s := open(t)
	if _, err := s.Get(digest('a')); !errors.Is(err, ErrNotFound) || fault.Of(err) != fault.User {
		t.Errorf("empty store: %v", err)
	}
	im, err := publishNew(testContext(t), s, digest('a'))
	if err != nil {
		t.Fatal(err)
	}
	checkImage(t, im)
	got, err := s.Get(digest('a'))
	if err != nil || got.Dir() != im.Dir() {
		t.Errorf("got %v, %v", got, err)
	}
	images, err := s.List()
	if err != nil || len(images) != 1 || images[0].Digest() != digest('a') {
		t.Errorf("list: %v, %v", images, err)
	}
	if _, err := publishNew(testContext(t), s, digest('a')); err != nil {
		t.Errorf("publishing twice: %v", err)
	}
	checkEmpty(t, s)
}

// checkImage wants a complete image that nobody but its owner can change.
func checkImage(t *testing.T, im Image) {
	t.Helper()
	f, err := im.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || info.Mode() != 0o444 || info.Size() != int64(len("squashfs")) ||
		int(info.Sys().(*syscall.Stat_t).Uid) != os.Geteuid() {
		t.Errorf("%v %v", info, err)
	}
	if m, err := im.Manifest(); err != nil || m.Digest != im.Digest() || m.Config.Env[0] != "A=B" {
		t.Errorf("%+v %v", m, err)
	}
	if r, err := im.Record(); err != nil || r.References[0] != "r" {
		t.Errorf("%+v %v", r, err)
	}
}

func checkEmpty(t *testing.T, s *Store) {
	t.Helper()
	for _, dir := range []string{s.tmpDir(), s.newDir()} {
		if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
			t.Errorf("left in %s: %v %v", dir, entries, err)
		}
	}
}

// TestPublishForAnAccount is a managed node: root publishes what another
// account has written.
func TestPublishForAnAccount(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: publishes another account's files")
	}
	s := open(t)
	l, err := s.Lock(testContext(t), digest('b'), nil)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := l.TempDir(accountID, accountID)
	if err != nil {
		t.Fatal(err)
	}
	checkAccess(t, dir, 0o700, accountID)
	if err := stage(dir, digest('b')); err != nil {
		t.Fatal(err)
	}
	chownAll(t, dir, accountID)
	im, err := publishDir(s, dir, digest('b'), accountID)
	if err != nil {
		t.Fatal(err)
	}
	checkImage(t, im)
	checkAccess(t, im.Dir(), 0o755, 0)
	checkAccess(t, s.newDir(), 0o700, 0)
	checkAccess(t, s.locksDir(), 0o700, 0)
	checkAccess(t, s.tmpDir(), 0o711, 0)
	if err := l.Release(); err != nil {
		t.Fatal(err)
	}
	checkEmpty(t, s)
}

func checkAccess(t *testing.T, path string, mode os.FileMode, uid int) {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != mode || int(info.Sys().(*syscall.Stat_t).Uid) != uid {
		t.Errorf("%s: %v, %v; want %v of uid %d", path, info.Mode(), err, mode, uid)
	}
}

func chownAll(t *testing.T, dir string, uid int) {
	t.Helper()
	for _, name := range []string{RootfsName, ConfigName, RecordName} {
		if err := os.Lchown(filepath.Join(dir, name), uid, uid); err != nil {
			t.Fatal(err)
		}
	}
}

func publishDir(s *Store, dir string, d Digest, stager int) (Image, error) {
	work, err := os.Open(dir)
	if err != nil {
		return Image{}, err
	}
	defer work.Close()
	return s.Publish(Work{Folder: work, Stager: stager}, d)
}

// TestPublishRefuses lets the account that pulls try to pass off something
// else as an image.
func TestPublishRefuses(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("s"), 0o600); err != nil {
		t.Fatal(err)
	}
	rootfs := func(dir string) string { return filepath.Join(dir, RootfsName) }
	for _, test := range []struct {
		name   string
		tamper func(dir string) error
		stager int
		cause  string
	}{
		{"a symbolic link", func(dir string) error {
			return errors.Join(os.Remove(rootfs(dir)), os.Symlink(secret, rootfs(dir)))
		}, os.Geteuid(), "symbolic links"},
		{"a second name", func(dir string) error { return os.Link(rootfs(dir), filepath.Join(dir, "again")) }, os.Geteuid(), "2 names"},
		{"a fifo", func(dir string) error { return errors.Join(os.Remove(rootfs(dir)), unix.Mkfifo(rootfs(dir), 0o600)) }, os.Geteuid(), "not a regular file"},
		{"a folder", func(dir string) error { return errors.Join(os.Remove(rootfs(dir)), os.Mkdir(rootfs(dir), 0o700)) }, os.Geteuid(), "not a regular file"},
		{"another owner", func(string) error { return nil }, os.Geteuid() + 1, "belongs to uid"},
		{"a missing file", func(dir string) error { return os.Remove(filepath.Join(dir, RecordName)) }, os.Geteuid(), "no such file"},
		{"another image's config", func(dir string) error { return stage(dir, digest('d')) }, os.Geteuid(), "is about sha256:dddd"},
		{"a huge config", func(dir string) error { return os.Truncate(filepath.Join(dir, ConfigName), maxJSON+1) }, os.Geteuid(), "larger"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := open(t)
			l, err := s.Lock(testContext(t), digest('c'), nil)
			if err != nil {
				t.Fatal(err)
			}
			dir, err := l.TempDir(os.Geteuid(), os.Getegid())
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(stage(dir, digest('c')), test.tamper(dir)); err != nil {
				t.Fatal(err)
			}
			_, err = publishDir(s, dir, digest('c'), test.stager)
			if err == nil || !strings.Contains(err.Error(), test.cause) {
				t.Errorf("got %v", err)
			}
			if _, err := s.Get(digest('c')); !errors.Is(err, ErrNotFound) {
				t.Error("it was published")
			}
			if raw, err := os.ReadFile(secret); err != nil || string(raw) != "s" {
				t.Errorf("the link's target was touched: %q %v", raw, err)
			}
			checkAccess(t, secret, 0o600, os.Geteuid())
			if err := l.Release(); err != nil {
				t.Fatal(err)
			}
			checkEmpty(t, s)
		})
	}
}

// TestPublishSurvivesCrash kills a publisher after each step.
func TestPublishSurvivesCrash(t *testing.T) {
	steps := []string{"made folder", "took " + RootfsName, "took " + ConfigName, "took " + RecordName, "renamed"}
	for _, step := range steps {
		t.Run(step, func(t *testing.T) {
			s := open(t)
			cmd := exec.CommandContext(testContext(t), "/proc/self/exe")
			cmd.Env = append(os.Environ(), killEnv+"="+s.Root(), stepEnv+"="+step)
			out, err := cmd.Output()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.Exited() {
				t.Fatalf("was not killed: %v, %s", err, out)
			}
			if im, err := s.Get(digest('a')); err == nil {
				checkImage(t, im)
			} else if step == "renamed" {
				t.Error(err)
			}
			im, err := publishNew(testContext(t), s, digest('a'))
			if err != nil {
				t.Fatal(err)
			}
			checkImage(t, im)
			checkEmpty(t, s)
		})
	}
}

func TestRemember(t *testing.T) {
	s := open(t)
	im, err := publishNew(testContext(t), s, digest('a'))
	if err != nil {
		t.Fatal(err)
	}
	for _, ref := range []string{"r", "other", "other", ""} {
		if err := im.Remember(ref); err != nil {
			t.Fatal(err)
		}
	}
	if r, err := im.Record(); err != nil || strings.Join(r.References, " ") != "r other" {
		t.Errorf("%v, %v", r.References, err)
	}
}

// Users get at what root's store lets them at, whatever umask it was made
// under, and in whatever order.
func TestFoldersRights(t *testing.T) {
	old := unix.Umask(0o077)
	t.Cleanup(func() { unix.Umask(old) })
	for range 20 {
		s := &Store{root: filepath.Join(t.TempDir(), "var", "store")}
		if err := s.makeFolders(0o755); err != nil {
			t.Fatal(err)
		}
		for path, want := range map[string]os.FileMode{
			filepath.Dir(s.root): 0o755, s.root: 0o755, filepath.Dir(s.imagesDir()): 0o755, s.imagesDir(): 0o755,
			s.tmpDir(): 0o711, s.newDir(): 0o700, s.locksDir(): 0o700,
		} {
			info, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			if got := info.Mode().Perm(); got != want {
				t.Errorf("%s: %v, want %v", path, got, want)
			}
		}
	}
}

func TestOpenOfOthers(t *testing.T) {
	if _, err := Open("relative"); fault.Of(err) != fault.User {
		t.Errorf("relative path: %v", err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(filepath.Join(file, "store")); fault.Of(err) != fault.Site || fault.Remedy(err) == "" {
		t.Errorf("below a file: %v", err)
	}
	if _, err := OpenExisting(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("OpenExisting made a store")
	}
}
