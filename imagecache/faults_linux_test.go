package imagecache

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/imagecache/store"
	"github.com/berth-hpc/berth/testdata/faultfs"
)

// faultyImage has what takes several writes, and little enough for many pulls.
func faultyImage(t *testing.T) [][]byte {
	t.Helper()
	noise := make([]byte, 300<<10) // does not compress
	for rng, i := rand.New(rand.NewPCG(1, 2)), 0; i < len(noise); i++ {
		noise[i] = byte(rng.Uint32())
	}
	return [][]byte{
		tarOf(t, dir("bin", 0o755), file("bin/tool", 0o755, string(noise)), file("f", 0o644, "old")),
		tarOf(t, file("f", 0o644, "new"), hardlink("g", "f"), symlink("l", "f")),
	}
}

// faultTrials are the converters, and how often a fault is tried: mksquashfs
// and the unpacker write a lot, in ways that repeat.
var faultTrials = []struct {
	converter Converter
	every     int
	seeds     int
}{{Stream{}, 1, 4}, {Umoci{}, 7, 1}}

// TestFaultsOfPull interrupts a pull at every step, by power cuts, full disks
// and errors.
func TestFaultsOfPull(t *testing.T) {
	r := newTestRegistry(t)
	ref := r.push(t, "x:1", imageOf(t, faultyImage(t)...))
	for _, test := range faultTrials {
		t.Run(test.converter.Name(), func(t *testing.T) {
			pull := func(dir string) error {
				s, err := store.Open(filepath.Join(dir, "store"))
				if err != nil {
					return err
				}
				_, err = Pull(context.Background(), s, ref, FetchOptions{Converter: test.converter})
				return err
			}
			faultfs.Trial{
				Seeds: test.seeds, Every: test.every, Do: pull,
				Check: func(t testing.TB, dir string, err error) {
					checkDiskBlame(t, err)
					root := filepath.Join(dir, "store")
					if n := checkVerified(t, root); err == nil && n != 1 {
						t.Errorf("pulled, but the store has %d images", n)
					}
					if err := pull(dir); err != nil {
						t.Errorf("the next: %v", err)
					}
					if n := checkVerified(t, root); n != 1 {
						t.Errorf("afterwards the store has %d images", n)
					}
					checkSwept(t, root)
				},
			}.Run(t)
		})
	}
}

// checkDiskBlame wants a failure to be the site's, with a remedy.
func checkDiskBlame(t testing.TB, err error) {
	t.Helper()
	if err != nil && !errors.Is(err, faultfs.ErrPower) && (fault.Of(err) != fault.Site || fault.Remedy(err) == "") {
		t.Errorf("blame %v, remedy %q: %v", fault.Of(err), fault.Remedy(err), err)
	}
}

// checkVerified wants every image that the store shows to be whole, and returns
// how many there are.
func checkVerified(t testing.TB, root string) int {
	t.Helper()
	s, err := store.OpenExisting(root) // it may belong to another user
	if errors.Is(err, os.ErrNotExist) {
		return 0
	}
	if err != nil {
		t.Fatal(err)
	}
	images, err := s.List()
	if err != nil {
		t.Fatal(err)
	}
	for _, im := range images {
		if err := im.Verify(context.Background()); err != nil {
			t.Errorf("visible, but: %v", err)
		}
		if m, err := im.Manifest(); err != nil || m.Digest != im.Digest() || m.Config.WorkingDir != "/work" {
			t.Errorf("visible, but: %+v, %v", m, err)
		}
	}
	return len(images)
}

// checkSwept lets somebody take a lock, and wants nothing left of what was
// interrupted.
func checkSwept(t testing.TB, root string) {
	t.Helper()
	s, err := store.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	d, err := store.ParseDigest(testDigest)
	if err != nil {
		t.Fatal(err)
	}
	l, err := s.Lock(context.Background(), d, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Release(); err != nil {
		t.Error(err)
	}
	checkNoLeftovers(t, root)
}

// TestKilledAtEveryStep kills a process that pulls when it has done the first,
// second … of its operations on the store.
func TestKilledAtEveryStep(t *testing.T) {
	r := newTestRegistry(t)
	ref := r.push(t, "x:1", imageOf(t, faultyImage(t)...))
	for _, test := range faultTrials {
		t.Run(test.converter.Name(), func(t *testing.T) {
			h := newHelper(t, nobodyID)
			f := faultfs.Mount(t)
			h.store = filepath.Join(f.Dir(), "store")
			if err := os.Chown(f.Dir(), h.uid, h.uid); err != nil {
				t.Fatal(err)
			}
			f.Settle()
			env := "BERTH_TEST_CONVERTER=" + test.converter.Name()
			h.pull(t, ref, env)
			ops := f.Ops()
			for n := 1; n < len(ops); n += test.every {
				t.Run("after "+ops[n-1].String(), func(t *testing.T) {
					f.Reset()
					killAfter(t, f, n, h.command(testContext(t), ref, env))
					checkVerified(t, h.storeDir())
					h.pull(t, ref, env)
					if n := checkVerified(t, h.storeDir()); n != 1 {
						t.Errorf("afterwards the store has %d images", n)
					}
					checkSwept(t, h.storeDir())
				})
			}
		})
	}
}

// killAfter runs cmd and kills it when it, or what it started, has done its
// n-th operation on f.
func killAfter(t *testing.T, f *faultfs.FS, n int, cmd *exec.Cmd) {
	t.Helper()
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	started := make(chan struct{})
	f.Plan(faultfs.Kill(n, func(int) {
		<-started
		_ = cmd.Process.Kill()
	}))
	err := cmd.Start()
	close(started)
	if err != nil {
		t.Fatal(err)
	}
	err = cmd.Wait()
	f.Heal()
	if err == nil && len(f.Ops()) < n {
		return // mksquashfs does not always do the same
	}
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.Exited() {
		t.Fatalf("was not killed: %v, %s", err, out.String())
	}
}
