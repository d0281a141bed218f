package faultfs

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// contents describes the files below dir: "path" or "path=content".
func contents(t *testing.T, dir string) []string {
	t.Helper()
	var found []string
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		name, _ := filepath.Rel(dir, path)
		if d.Type().IsRegular() {
			raw, err := os.ReadFile(path)
			found = append(found, name+"="+string(raw))
			return err
		}
		found = append(found, name)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// syncPath is fsync(2) of a file or folder.
func syncPath(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

func write(path, text string) error { return os.WriteFile(path, []byte(text), 0o644) }

// checkDisk compares a state of the disk with want.
func checkDisk(t *testing.T, f *FS, n int, s Survival, want ...string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "disk")
	must(t, f.Disk(n, s, dir))
	if got := contents(t, dir); !slices.Equal(got, want) {
		t.Errorf("after %d operations, %v: %q, want %q; done: %v", n, s, got, want, f.Ops())
	}
}

const all = 1 << 20 // operations

// TestDurability says what each sync is good for.
func TestDurability(t *testing.T) {
	for _, test := range []struct {
		name string
		do   func(dir string) error
		on   map[string][]string // survival -> what is on disk
	}{
		{"nothing synced", func(d string) error { return write(d+"/a", "1") }, map[string][]string{
			"nothing unsynced": nil, "everything": {"a=1"}, "names without bytes": {"a="}, "names with zeros": {"a=\x00"},
			"bytes without names": nil,
		}},
		{"file synced", func(d string) error { return errors.Join(write(d+"/a", "1"), syncPath(d+"/a")) }, map[string][]string{
			"nothing unsynced": nil, "names without bytes": {"a=1"},
		}},
		{"folder synced", func(d string) error { return errors.Join(write(d+"/a", "1"), syncPath(d)) }, map[string][]string{
			"nothing unsynced": {"a="}, "bytes without names": {"a=1"},
		}},
		{"both synced, then changed", func(d string) error {
			return errors.Join(write(d+"/a", "old"), syncPath(d+"/a"), syncPath(d), write(d+"/a", "new!"))
		}, map[string][]string{"nothing unsynced": {"a=old"}, "everything": {"a=new!"}, "names with zeros": {"a=\x00\x00\x00\x00"}}},
		{"renamed over a synced file", func(d string) error {
			return errors.Join(write(d+"/a", "old"), syncPath(d+"/a"), write(d+"/b", "new"), syncPath(d), os.Rename(d+"/b", d+"/a"))
		}, map[string][]string{
			"nothing unsynced": {"a=old", "b="}, "everything": {"a=new"}, "names without bytes": {"a="},
		}},
		{"renamed to another folder", func(d string) error {
			return errors.Join(os.Mkdir(d+"/x", 0o755), os.Mkdir(d+"/y", 0o755), write(d+"/x/a", "1"), syncPath(d+"/x/a"),
				syncPath(d+"/x"), syncPath(d), os.Rename(d+"/x/a", d+"/y/a"), syncPath(d+"/y"))
		}, map[string][]string{
			"nothing unsynced": {"x", "x/a=1", "y", "y/a=1"}, "everything": {"x", "y", "y/a=1"},
		}},
		{"synced in a folder without a name", func(d string) error {
			return errors.Join(os.Mkdir(d+"/x", 0o755), write(d+"/x/a", "1"), syncPath(d+"/x/a"), syncPath(d+"/x"))
		}, map[string][]string{"nothing unsynced": nil, "names without bytes": {"x", "x/a=1"}}},
		{"removed", func(d string) error {
			return errors.Join(write(d+"/a", "1"), syncPath(d+"/a"), syncPath(d), os.Remove(d+"/a"))
		}, map[string][]string{"nothing unsynced": {"a=1"}, "everything": nil}},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := Mount(t)
			must(t, test.do(f.Dir()))
			for _, s := range Survivals(0, 0) {
				if want, ok := test.on[s.String()]; ok {
					checkDisk(t, f, all, s, want...)
				}
			}
			live := contents(t, f.Dir())
			checkDisk(t, f, all, Everything(), live...)
			f.Settle()
			checkDisk(t, f, all, Nothing(), live...)
		})
	}
}

// TestAttributes: mode and owner go to disk with fsync, of folders too, and
// not with fdatasync.
func TestAttributes(t *testing.T) {
	f := Mount(t)
	dir, file := f.Dir()+"/d", f.Dir()+"/d/f"
	must(t, os.Mkdir(dir, 0o700), write(file, "1"))
	f.Settle()
	modes := func() (d, file os.FileMode) {
		out := filepath.Join(t.TempDir(), "disk")
		must(t, f.Disk(all, Nothing(), out))
		a, errA := os.Stat(out + "/d")
		b, errB := os.Stat(out + "/d/f")
		must(t, errA, errB)
		return a.Mode().Perm(), b.Mode().Perm()
	}
	must(t, os.Chmod(dir, 0o755), os.Chmod(file, 0o400))
	if d, f := modes(); d != 0o700 || f != 0o644 {
		t.Errorf("unsynced: %v %v", d, f)
	}
	h, err := os.Open(file)
	must(t, err)
	defer h.Close()
	must(t, unix.Fdatasync(int(h.Fd())), syncPath(dir))
	if d, f := modes(); d != 0o755 || f != 0o644 {
		t.Errorf("folder synced, file's data synced: %v %v", d, f)
	}
	must(t, h.Sync())
	if _, f := modes(); f != 0o400 {
		t.Errorf("synced: %v", f)
	}
}

// TestRandom: a seed gives one disk, and seeds give each fate.
func TestRandom(t *testing.T) {
	f := Mount(t)
	text := strings.Repeat("x", 4*sector)
	must(t, write(f.Dir()+"/a", text), write(f.Dir()+"/b", text), os.Rename(f.Dir()+"/b", f.Dir()+"/c"))
	seen := map[string]bool{}
	for seed := range uint64(200) {
		var disks [2][]string
		for i := range disks {
			dir := filepath.Join(t.TempDir(), "disk")
			must(t, f.Disk(all, Random(seed), dir))
			disks[i] = contents(t, dir)
		}
		if !slices.Equal(disks[0], disks[1]) {
			t.Fatalf("seed %d: %q and %q", seed, disks[0], disks[1])
		}
		for _, file := range disks[0] {
			seen[file] = true
		}
	}
	zeros, half := strings.Repeat("\x00", len(text)), strings.Repeat("\x00", sector)+text[:sector]
	for _, want := range []string{"a=", "a=" + text, "a=" + zeros, "a=" + half, "b=" + text, "c=" + text} {
		if !seen[want] {
			t.Errorf("never seen: %.20q of %d bytes", want, len(want))
		}
	}
}

// TestFaults does the same with each fault at its third operation.
func TestFaults(t *testing.T) {
	do := func(d string) error {
		return errors.Join(os.Mkdir(d+"/1", 0o755), os.Mkdir(d+"/2", 0o755), os.Mkdir(d+"/3", 0o755), os.Mkdir(d+"/4", 0o755))
	}
	for _, test := range []struct {
		name  string
		fault Fault
		cause error
		left  []string
	}{
		{"none", Fault{}, nil, []string{"1", "2", "3", "4"}},
		{"power", PowerCut(3), syscall.EIO, []string{"1", "2"}},
		{"full", Full(3), syscall.ENOSPC, []string{"1", "2"}},
		{"full once", FullOnce(3), syscall.ENOSPC, []string{"1", "2", "4"}},
		{"error", IOError(3), syscall.EIO, []string{"1", "2", "4"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := Mount(t)
			f.Plan(test.fault)
			if err := do(f.Dir()); !errors.Is(err, test.cause) {
				t.Errorf("got %v, want %v", err, test.cause)
			}
			if _, err := os.ReadDir(f.Dir()); (err != nil) != (test.name == "power") {
				t.Errorf("reading: %v", err)
			}
			f.Heal()
			if got := contents(t, f.Dir()); !slices.Equal(got, test.left) {
				t.Errorf("left: %q", got)
			}
			must(t, os.Mkdir(f.Dir()+"/5", 0o755))
		})
	}
}

// TestFullDisk removes and reads all the same, and takes no bytes.
func TestFullDisk(t *testing.T) {
	f := Mount(t)
	must(t, write(f.Dir()+"/a", "1"), write(f.Dir()+"/b", "1"))
	f.Settle()
	f.Plan(Full(1))
	must(t, os.Remove(f.Dir()+"/b"))
	if err := write(f.Dir()+"/a", "2"); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("write: %v", err)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(f.Dir(), &st); err != nil || st.Bavail != 0 {
		t.Errorf("%d blocks free, %v", st.Bavail, err)
	}
	f.Heal()
	if err := unix.Statfs(f.Dir(), &st); err != nil || st.Bavail == 0 {
		t.Errorf("%d blocks free, %v", st.Bavail, err)
	}
}

// TestFailedSyncLosesData: the next sync succeeds and brings nothing back. Of
// other descriptors those hear of it that were open.
func TestFailedSyncLosesData(t *testing.T) {
	f := Mount(t)
	must(t, write(f.Dir()+"/a", ""))
	f.Settle()
	h, err := os.OpenFile(f.Dir()+"/a", os.O_WRONLY, 0)
	must(t, err)
	defer h.Close()
	other, err := os.Open(f.Dir() + "/a")
	must(t, err)
	defer other.Close()
	_, err = h.WriteString("lost")
	must(t, err)
	f.Plan(IOError(2))
	if err := h.Sync(); !errors.Is(err, syscall.EIO) {
		t.Errorf("got %v", err)
	}
	must(t, h.Sync(), syncPath(f.Dir()+"/a"))
	if err := other.Sync(); !errors.Is(err, syscall.EIO) {
		t.Errorf("who had the file open got %v", err)
	}
	must(t, other.Sync())
	checkDisk(t, f, all, Everything(), "a=")
}

// TestClose fails where a network file system does: at the close of what was
// written and not synced, and at no other.
func TestClose(t *testing.T) {
	f := Mount(t)
	must(t, write(f.Dir()+"/a", "1"), syncPath(f.Dir()+"/a"))
	if err := syncPath(f.Dir() + "/a"); err != nil {
		t.Error(err)
	}
	var kinds []Kind
	for _, o := range f.Ops() {
		kinds = append(kinds, o.Kind)
	}
	if want := []Kind{Create, Write, Close, Fsync, Fsync}; !slices.Equal(kinds, want) {
		t.Errorf("got %v, want %v", kinds, want)
	}
	f.Settle()
	f.Plan(IOError(3)) // truncate, write
	if err := write(f.Dir()+"/a", "2"); !errors.Is(err, syscall.EIO) {
		t.Errorf("got %v", err)
	}
}

// TestKill ends another process with its third operation done.
func TestKill(t *testing.T) {
	f := Mount(t)
	f.Plan(Kill(3, func(pid int) { _ = unix.Kill(pid, unix.SIGKILL) }))
	cmd := exec.CommandContext(t.Context(), "sh", "-c", `cd "$0" && exec mkdir 1 2 3 4`, f.Dir())
	err := cmd.Run()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.Exited() {
		t.Errorf("it was not killed: %v", err)
	}
	if got := contents(t, f.Dir()); !slices.Equal(got, []string{"1", "2", "3"}) {
		t.Errorf("left: %q", got)
	}
}

// TestFileSystem is what any file system does.
func TestFileSystem(t *testing.T) {
	f := Mount(t)
	d := f.Dir()
	must(t, write(d+"/a", "abcdef"), os.Link(d+"/a", d+"/b"), os.Symlink("a", d+"/l"), os.Mkdir(d+"/dir", 0o755), write(d+"/dir/f", "f"))
	must(t, os.Truncate(d+"/b", 3), os.Chmod(d+"/a", 0o640))
	if info, err := os.Stat(d + "/l"); err != nil || info.Size() != 3 || info.Mode() != 0o640 || info.Sys().(*syscall.Stat_t).Nlink != 2 {
		t.Errorf("%v %v", info, err)
	}
	for name, err := range map[string]error{
		"exists":    os.Mkdir(d+"/dir", 0o755),
		"not empty": os.Rename(d+"/dir", d+"/dir2"),
	} {
		if (err == nil) != (name == "not empty") {
			t.Errorf("%s: %v", name, err)
		}
	}
	must(t, os.Mkdir(d+"/dir", 0o755))
	if err := unix.Rename(d+"/dir", d+"/dir2"); !errors.Is(err, syscall.ENOTEMPTY) {
		t.Errorf("renamed over a folder that is not empty: %v", err)
	}
	if err := unix.Renameat2(unix.AT_FDCWD, d+"/a", unix.AT_FDCWD, d+"/l", unix.RENAME_NOREPLACE); !errors.Is(err, syscall.EEXIST) {
		t.Errorf("RENAME_NOREPLACE: %v", err)
	}
	must(t, unix.Renameat2(unix.AT_FDCWD, d+"/dir2", unix.AT_FDCWD, d+"/l", unix.RENAME_EXCHANGE))
	if got := strings.Join(contents(t, d), " "); got != "a=abc b=abc dir dir2 l l/f=f" {
		t.Errorf("got %s", got)
	}
	h, err := os.Open(d + "/a")
	must(t, err)
	defer h.Close()
	mapped, err := unix.Mmap(int(h.Fd()), 0, 3, unix.PROT_READ, unix.MAP_SHARED|unix.MAP_POPULATE)
	must(t, err)
	defer func() { _ = unix.Munmap(mapped) }()
	if !bytes.Equal(mapped, []byte("abc")) {
		t.Errorf("mapped: %q", mapped)
	}
	must(t, unix.Flock(int(h.Fd()), unix.LOCK_EX|unix.LOCK_NB))
	again, err := os.Open(d + "/a")
	must(t, err)
	defer again.Close()
	if err := unix.Flock(int(again.Fd()), unix.LOCK_EX|unix.LOCK_NB); !errors.Is(err, unix.EWOULDBLOCK) {
		t.Errorf("locked twice: %v", err)
	}
	must(t, os.RemoveAll(d+"/l"), os.Remove(d+"/b"))
	if got := strings.Join(contents(t, d), " "); got != "a=abc dir dir2" {
		t.Errorf("got %s", got)
	}
}

// TestReset brings back what was there at the last Settle, for readers, too.
func TestReset(t *testing.T) {
	f := Mount(t)
	must(t, os.Mkdir(f.Dir()+"/d", 0o755), write(f.Dir()+"/d/a", "1"), write(f.Dir()+"/gone", ""))
	f.Settle()
	for range 3 {
		f.Plan(Full(4))
		must(t, write(f.Dir()+"/d/a", "22"))
		must(t, os.Remove(f.Dir()+"/gone"))
		if err := os.Rename(f.Dir()+"/d", f.Dir()+"/e"); !errors.Is(err, syscall.ENOSPC) {
			t.Error(err)
		}
		f.Reset()
		if got := strings.Join(contents(t, f.Dir()), " "); got != "d d/a=1 gone=" {
			t.Errorf("got %s", got)
		}
	}
}

// TestOpString names what a test prints.
func TestOpString(t *testing.T) {
	f := Mount(t)
	must(t, os.Mkdir(f.Dir()+"/d", 0o755), write(f.Dir()+"/d/a", "123"), os.Rename(f.Dir()+"/d/a", f.Dir()+"/b"))
	f.Plan(FullOnce(len(f.Ops()) + 1))
	_ = os.Mkdir(f.Dir()+"/x", 0o755)
	var lines []string
	for _, o := range f.Ops() {
		lines = append(lines, o.String())
	}
	want := "1 mkdir d\n2 create d/a\n3 write d/a (3 bytes)\n4 close d/a\n5 rename d/a -> b\n6 mkdir x: no space left on device"
	if got := strings.Join(lines, "\n"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
