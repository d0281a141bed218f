package store

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/testdata/faultfs"
)

// seeds is how many random disks each power cut leaves.
const seeds = 6

// rootfs stands for a squashfs file of several sectors.
var rootfs = strings.Repeat("squashfs", 500)

// stageAll writes what a conversion leaves, as uid.
func stageAll(dir string, d Digest, uid int) error {
	sum, err := Hash(context.Background(), strings.NewReader(rootfs))
	if err != nil {
		return err
	}
	err = errors.Join(
		os.WriteFile(filepath.Join(dir, RootfsName), []byte(rootfs), 0o600),
		WriteJSON(filepath.Join(dir, ConfigName), 0o600, Manifest{Digest: d, OS: "linux"}),
		WriteJSON(filepath.Join(dir, RecordName), 0o600, Record{Digest: d, References: []string{"r"}, Squashed: int64(len(rootfs)), SHA256: sum}))
	for _, name := range []string{RootfsName, ConfigName, RecordName} {
		if uid != os.Geteuid() && err == nil {
			err = os.Chown(filepath.Join(dir, name), uid, uid)
		}
	}
	return err
}

// pull is what the store sees of a pull by uid.
func pull(root string, d Digest, uid int) (err error) {
	s, err := Open(root)
	if err != nil {
		return err
	}
	l, err := s.Lock(context.Background(), d, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Release()) }()
	if _, err := s.Get(d); err == nil {
		return nil
	}
	dir, err := l.TempDir(uid, uid)
	if err != nil {
		return err
	}
	if err := stageAll(dir, d, uid); err != nil {
		return siteError("convert", d.String(), err) // as Fetch does
	}
	_, err = publishDir(s, dir, d, uid)
	return err
}

func pulled(t testing.TB, root string, digests ...Digest) *Store {
	t.Helper()
	for _, d := range digests {
		if err := pull(root, d, os.Geteuid()); err != nil {
			t.Fatal(err)
		}
	}
	s, err := Open(root)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// checkVisible wants every image that the store shows to be whole, and returns
// them.
func checkVisible(t testing.TB, root string) []Digest {
	t.Helper()
	s, err := Open(root)
	if err != nil {
		t.Fatal(err)
	}
	images, err := s.List()
	if err != nil {
		t.Fatal(err)
	}
	var visible []Digest
	for _, im := range images {
		checkWhole(t, im)
		visible = append(visible, im.Digest())
	}
	return visible
}

func checkWhole(t testing.TB, im Image) {
	t.Helper()
	if err := im.Verify(context.Background()); err != nil {
		t.Errorf("visible, but: %v", err)
	}
	if m, err := im.Manifest(); err != nil || m.Digest != im.Digest() {
		t.Errorf("visible, but: %+v, %v", m, err)
	}
	want := os.FileMode(0o700)
	if os.Geteuid() == 0 {
		want = 0o755
	}
	if info, err := os.Stat(im.Dir()); err != nil || info.Mode().Perm() != want {
		t.Errorf("visible, but its folder: %v, %v", info.Mode(), err)
	}
	for _, name := range []string{RootfsName, ConfigName, RecordName} {
		if info, err := os.Stat(filepath.Join(im.Dir(), name)); err != nil || info.Mode().Perm() != 0o444 {
			t.Errorf("visible, but %s: %v, %v", name, info, err)
		}
	}
}

// checkClean lets somebody take a lock, and wants nothing left of what was
// interrupted.
func checkClean(t testing.TB, root string) {
	t.Helper()
	s, err := Open(root)
	if err != nil {
		t.Fatal(err)
	}
	l, err := s.Lock(context.Background(), digest('f'), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Release(); err != nil {
		t.Error(err)
	}
	for _, dir := range []string{s.tmpDir(), s.newDir()} {
		if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
			t.Errorf("left in %s: %v %v", dir, entries, err)
		}
	}
	images, err := s.List()
	if err != nil {
		t.Fatal(err)
	}
	for _, im := range images {
		if entries, err := os.ReadDir(im.Dir()); err != nil || len(entries) != 3 {
			t.Errorf("an image's folder: %v %v", entries, err)
		}
	}
}

// checkBlame wants a failure to be the machine's.
func checkBlame(t testing.TB, err error) {
	t.Helper()
	if err != nil && !errors.Is(err, faultfs.ErrPower) && (fault.Of(err) != fault.Site || fault.Remedy(err) == "") {
		t.Errorf("blame %v, remedy %q: %v", fault.Of(err), fault.Remedy(err), err)
	}
}

// TestFaultsOfPublish interrupts a publisher at every step, by power cuts, full
// disks and errors: a user, and root for the account that pulls.
func TestFaultsOfPublish(t *testing.T) {
	publishers := map[string]int{"own store": os.Geteuid()}
	if os.Geteuid() == 0 {
		publishers["root for an account"] = accountID
	}
	for name, uid := range publishers {
		t.Run(name, func(t *testing.T) {
			d := digest('a')
			faultfs.Trial{
				Seeds: seeds,
				Do:    func(dir string) error { return pull(filepath.Join(dir, "store"), d, uid) },
				Check: func(t testing.TB, dir string, err error) {
					root := filepath.Join(dir, "store")
					checkBlame(t, err)
					if got := checkVisible(t, root); err == nil && !slices.Equal(got, []Digest{d}) {
						t.Errorf("published, but the store has %v", got)
					}
					if err := pull(root, d, uid); err != nil {
						t.Errorf("the next: %v", err)
					}
					if got := checkVisible(t, root); !slices.Equal(got, []Digest{d}) {
						t.Errorf("afterwards the store has %v", got)
					}
					checkClean(t, root)
				},
			}.Run(t)
		})
	}
}

// TestFaultsOfRemember interrupts a change of an image's record.
func TestFaultsOfRemember(t *testing.T) {
	d := digest('a')
	remember := func(dir string) error {
		s, err := Open(dir)
		if err != nil {
			return err
		}
		im, err := s.Get(d)
		if err != nil {
			return err
		}
		return im.Remember("new")
	}
	faultfs.Trial{
		Seeds:   seeds,
		Prepare: func(t testing.TB, dir string) { pulled(t, dir, d) },
		Do:      remember,
		Check: func(t testing.TB, dir string, err error) {
			checkBlame(t, err)
			if got := checkVisible(t, dir); !slices.Equal(got, []Digest{d}) {
				t.Fatalf("the store has %v", got)
			}
			checkNames(t, dir, d, err == nil)
			if err := remember(dir); err != nil {
				t.Errorf("the next: %v", err)
			}
			checkNames(t, dir, d, true)
			checkVisible(t, dir)
			checkClean(t, dir)
		},
	}.Run(t)
}

// checkNames wants the old name in the record, and the new one if it must be.
func checkNames(t testing.TB, root string, d Digest, both bool) {
	t.Helper()
	s, err := Open(root)
	if err != nil {
		t.Fatal(err)
	}
	im, err := s.Get(d)
	if err != nil {
		t.Fatal(err)
	}
	r, err := im.Record()
	if err != nil || r.References[0] != "r" || (both && !slices.Equal(r.References, []string{"r", "new"})) {
		t.Errorf("references %q, %v", r.References, err)
	}
}

// TestFaultsOfRemove interrupts the removal of an image.
func TestFaultsOfRemove(t *testing.T) {
	d, other := digest('a'), digest('b')
	remove := func(dir string) (err error) {
		s, err := Open(dir)
		if err != nil {
			return err
		}
		l, err := s.Lock(context.Background(), d, nil)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, l.Release()) }()
		im, err := s.Get(d)
		if errors.Is(err, ErrNotFound) {
			return nil
		}
		return errors.Join(err, l.Remove(im))
	}
	faultfs.Trial{
		Seeds:   seeds,
		Prepare: func(t testing.TB, dir string) { pulled(t, dir, d, other) },
		Do:      remove,
		Check: func(t testing.TB, dir string, err error) {
			checkBlame(t, err)
			got := checkVisible(t, dir)
			if !slices.Contains(got, other) || (err == nil && slices.Contains(got, d)) {
				t.Errorf("removed with %v, but the store has %v", err, got)
			}
			if err := remove(dir); err != nil {
				t.Errorf("the next: %v", err)
			}
			if got := checkVisible(t, dir); !slices.Equal(got, []Digest{other}) {
				t.Errorf("afterwards the store has %v", got)
			}
			checkClean(t, dir)
		},
	}.Run(t)
}

// TestFaultsOfTree interrupts the unpacking of an image. The tree is complete
// or not there.
func TestFaultsOfTree(t *testing.T) {
	d := digest('a')
	unpack := func(dir string) error { return unpackTree(dir, d) }
	faultfs.Trial{
		Seeds:   seeds,
		Prepare: func(t testing.TB, dir string) { pulled(t, dir, d) },
		Do:      unpack,
		Check: func(t testing.TB, dir string, err error) {
			checkBlame(t, err)
			checkTree(t, dir, d)
			if err := unpack(dir); err != nil {
				t.Errorf("the next: %v", err)
			}
			if !checkTree(t, dir, d) {
				t.Error("afterwards there is no tree")
			}
			checkClean(t, dir)
		},
	}.Run(t)
}

func unpackTree(root string, d Digest) (err error) {
	s, err := Open(root)
	if err != nil {
		return err
	}
	s.syncAll = syncEach
	im, err := s.Get(d)
	if err != nil {
		return err
	}
	l, err := s.Lock(context.Background(), d, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Release()) }()
	if _, err := os.Stat(im.Tree()); err == nil {
		return nil
	}
	work, err := l.TempDir(os.Geteuid(), os.Getegid())
	if err != nil {
		return err
	}
	part := filepath.Join(work, "tree")
	err = errors.Join(os.Mkdir(part, 0o755), os.Mkdir(part+"/bin", 0o755),
		os.WriteFile(part+"/bin/tool", []byte(rootfs), 0o755), os.WriteFile(part+"/f", []byte("f"), 0o644))
	if err != nil {
		return siteError("unpack", d.String(), err)
	}
	return l.PublishTree(part, im)
}

// syncEach does what syncfs(2) does, in a way that faultfs hears of.
func syncEach(dir string) error {
	return filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return syncDir(path)
	})
}

// checkTree wants the tree to be complete, and says whether there is one.
func checkTree(t testing.TB, root string, d Digest) bool {
	t.Helper()
	s, err := Open(root)
	if err != nil {
		t.Fatal(err)
	}
	im, err := s.Get(d)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(im.Tree()); err != nil {
		return false
	}
	for name, want := range map[string]string{"bin/tool": rootfs, "f": "f"} {
		if got, err := os.ReadFile(filepath.Join(im.Tree(), name)); err != nil || string(got) != want {
			t.Errorf("visible, but %s: %.20q, %v", name, got, err)
		}
	}
	return true
}

// TestSyncFileSystem: what stands for syncfs(2) above is not what runs.
func TestSyncFileSystem(t *testing.T) {
	if err := syncFileSystem(t.TempDir()); err != nil {
		t.Error(err)
	}
	if err := syncFileSystem(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}
