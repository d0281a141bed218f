package store

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestUseAndLastUse(t *testing.T) {
	s := open(t)
	im := putImage(t, s, 'a', 8, 5)
	if used, err := im.LastUse(); err != nil || time.Since(used) < 4*time.Hour {
		t.Errorf("%v, %v", used, err)
	}
	f, err := im.Use(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	if used, err := im.LastUse(); err != nil || time.Since(used) > time.Minute {
		t.Errorf("not noted: %v, %v", used, err)
	}
	by, err := Processes{}.Of(testContext(t), im)
	if err != nil || len(by) != 1 || !strings.HasPrefix(by[0], "process ") || !strings.HasSuffix(by[0], "(store.test)") {
		t.Errorf("used by %q, %v", by, err)
	}
	var used *InUseError
	if err := s.Discard(testContext(t), im, Processes{}); !errors.As(err, &used) {
		t.Errorf("removed in use: %v", err)
	}
	f.Close()
	if by, err := (Processes{}).Of(testContext(t), im); err != nil || len(by) != 0 {
		t.Errorf("used by %q, %v", by, err)
	}
	if err := s.Discard(testContext(t), im, Processes{}); err != nil {
		t.Error(err)
	}
	if _, err := im.Use(testContext(t)); !errors.Is(err, ErrNotFound) {
		t.Errorf("of a removed image: %v", err)
	}
	checkEmpty(t, s)
}

// TestUseInherited: the lock lives in the processes that got the descriptor.
func TestUseInherited(t *testing.T) {
	s := open(t)
	im := putImage(t, s, 'a', 8, 1)
	f, err := im.Use(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(testContext(t), "cat")
	cmd.ExtraFiles = []*os.File{f}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	f.Close()
	if by, err := (Processes{}).Of(testContext(t), im); err != nil || len(by) == 0 {
		t.Errorf("used by %q, %v", by, err)
	}
	if err := errors.Join(stdin.Close(), cmd.Wait()); err != nil {
		t.Fatal(err)
	}
	if by, err := (Processes{}).Of(testContext(t), im); err != nil || len(by) != 0 {
		t.Errorf("used by %q, %v", by, err)
	}
}

// TestUseOfATree: whoever has a mount of an unpacked tree uses the image.
func TestUseOfATree(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: mounts")
	}
	s := open(t)
	im := putImage(t, s, 'a', 8, 1)
	if err := os.MkdirAll(filepath.Join(im.Tree(), "bin"), 0o700); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(testContext(t), "unshare", "--mount", "sh", "-c", `mount --bind "$1/bin" /mnt && echo mounted && read end`, "sh", im.Tree())
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if n, err := stdout.Read(make([]byte, 16)); err != nil || n == 0 {
		t.Fatal(err)
	}
	var used *InUseError
	if err := s.Discard(testContext(t), im, Processes{}); !errors.As(err, &used) || !strings.Contains(err.Error(), "(sh)") {
		t.Errorf("%v", err)
	}
	// Also when the image itself is gone.
	if err := os.RemoveAll(im.Dir()); err != nil {
		t.Fatal(err)
	}
	sp := &Space{Store: s, Users: Processes{}}
	if removed, err := sp.Collect(testContext(t), Collection{}); err != nil || len(removed) != 0 {
		t.Errorf("%v, %v", removed, err)
	}
	stdin.Close()
	_ = cmd.Wait() // read failed
	if removed, err := sp.Collect(testContext(t), Collection{}); err != nil || len(removed) != 1 {
		t.Errorf("%v, %v", removed, err)
	}
	if _, err := os.Stat(im.Tree()); err == nil {
		t.Error("the tree is still there")
	}
}

// TestUseAgainstDiscard: many use an image that others remove and put back. An
// image in use never goes.
func TestUseAgainstDiscard(t *testing.T) {
	s := open(t)
	ctx, cancel := context.WithTimeout(testContext(t), 2*time.Second)
	defer cancel()
	var uses, removals atomic.Int64
	var all sync.WaitGroup
	for range 3 {
		all.Go(func() {
			pause := time.NewTicker(time.Millisecond) // or somebody always uses it
			defer pause.Stop()
			for ctx.Err() == nil {
				if use(t, s, digest('a')) {
					uses.Add(1)
				}
				<-pause.C
			}
		})
	}
	for range 2 {
		all.Go(func() {
			for ctx.Err() == nil {
				im := Image{dir: filepath.Join(s.imagesDir(), Key(digest('a'))), digest: digest('a')}
				if err := s.Discard(testContext(t), im, Processes{}); err == nil {
					removals.Add(1)
				}
				if _, err := publishNew(testContext(t), s, digest('a')); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	if uses.Load() < 10 || removals.Load() < 10 {
		t.Errorf("%d uses, %d removals: too few to mean anything", uses.Load(), removals.Load())
	}
	t.Logf("%d uses, %d removals", uses.Load(), removals.Load())
}

// use uses the image once and checks that it has a name all the while.
func use(t *testing.T, s *Store, d Digest) bool {
	im, err := s.Get(d)
	if err != nil {
		return false
	}
	f, err := im.Use(testContext(t))
	if err != nil {
		if !errors.Is(err, ErrNotFound) {
			t.Error(err)
		}
		return false
	}
	defer f.Close()
	var st unix.Stat_t
	if _, err := im.Manifest(); err != nil {
		t.Errorf("in use, but removed: %v", err)
	}
	if err := unix.Fstat(int(f.Fd()), &st); err != nil || st.Nlink != 1 {
		t.Errorf("in use, but removed: %d names, %v", st.Nlink, err)
	}
	return true
}

func TestReopenWritable(t *testing.T) {
	im := putImage(t, open(t), 'a', 8, 1)
	f, err := reopenWritable(im.Rootfs())
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFL, 0)
	if err != nil || flags&unix.O_ACCMODE != unix.O_RDWR {
		t.Errorf("%x, %v", flags, err)
	}
	checkAccess(t, im.Rootfs(), 0o444, os.Geteuid())
}

// TestRemoveFromAFullDisk: making room needs none.
func TestRemoveFromAFullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: mounts")
	}
	dir := t.TempDir()
	if err := unix.Mount("test", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Unmount(dir, unix.MNT_DETACH) }()
	s, err := Open(filepath.Join(dir, "store"))
	if err != nil {
		t.Fatal(err)
	}
	im := putImage(t, s, 'a', 8, 1)
	fill, err := os.Create(filepath.Join(dir, "fill"))
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = fill.Write(make([]byte, 4096))
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
	if err := errors.Join(fill.Close(), s.Discard(testContext(t), im, Processes{})); err != nil {
		t.Error(err)
	}
	if held(t, s) != "" {
		t.Error("still there")
	}
	checkEmpty(t, s)
}
