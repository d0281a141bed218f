package launcher_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/berth-hpc/berth/launcher"
	"golang.org/x/sys/unix"
)

// diskFolder is a folder of the test's user on a file system that keeps
// attributes of users.
func diskFolder(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	open(t, dir, filepath.Dir(dir))
	if err := os.Chown(dir, user.UID, user.GID); err != nil {
		t.Fatal(err)
	}
	return dir
}

// folders lists the containers' folders in dir.
func scratchFolders(t *testing.T, dir string) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, ".berth-*"))
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// eventually waits until f is true.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(20 * time.Second); !f(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("not within 20 s: %s", what)
		}
	}
}

// onDisk is a writable creation whose changes go below dir.
func (b *bed) onDisk(users *launcher.UserNamespaces, idmap bool, dir string) *launcher.Creation {
	cr := b.writable(users, idmap)
	cr.Request.Scratch = launcher.Scratch{Folder: dir, OnDisk: true}
	return cr
}

// What a container changes is on the disk while it lives, as the user's, and
// gone when its last task has ended.
func TestScratch(t *testing.T) {
	bothWays(t, func(t *testing.T, b *bed, idmap bool) {
		users := b.users()
		dir := diskFolder(t)
		c, err := b.onDisk(users, idmap, dir+"/%u/new").Create(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		dir = filepath.Join(dir, "alice/new")
		for _, step := range []struct{ script, want string }{
			{"echo more >>/usr/lib/file && cat /usr/lib/file", "lib\nmore"},
			{"rm -r /usr/lib && mkdir /usr/lib && ls /usr/lib; stat -c %u /usr/lib", "62001"},
			{"mkdir /closed /closed/d && touch /closed/d/f && chmod 0 /closed/d /closed", ""},
			{"head -n1 /etc/passwd | cut -d: -f1", "alice"},
		} {
			if got := b.run(users, c, false, step.script); got != step.want {
				t.Errorf("%s:\n%s\nwant\n%s", step.script, got, step.want)
			}
		}
		made := scratchFolders(t, dir)
		if len(made) != 1 {
			t.Fatalf("the container's folder: %q", made)
		}
		var st unix.Stat_t
		if err := unix.Stat(filepath.Join(made[0], "upper/closed"), &st); err != nil || st.Uid != uint32(user.UID) {
			t.Errorf("changes are not on the disk as the user's: uid %d, %v", st.Uid, err)
		}
		c.Close()
		eventually(t, "the folder is gone", func() bool { return len(scratchFolders(t, dir)) == 0 })
	})
}

// A container that fails leaves nothing, whether it got as far as a janitor or not.
func TestScratchOfFailedContainers(t *testing.T) {
	if !launcher.PrivateMounts(t) {
		return
	}
	b := newBed(t)
	users := b.users()
	dir := diskFolder(t)
	for name, change := range map[string]func(*launcher.Request){
		"mount": func(r *launcher.Request) { r.Mounts = []string{"/no/such:/x"} },
		"late":  func(r *launcher.Request) { r.Workdir = "/nowhere" },
	} {
		cr := b.onDisk(users, false, dir)
		change(cr.Request)
		if c, err := cr.Create(t.Context()); err == nil {
			c.Close()
			t.Errorf("%s: no error", name)
		}
		eventually(t, name+": the folder is gone", func() bool { return len(scratchFolders(t, dir)) == 0 })
	}
}

// Kernels before 6.6 keep no attributes of users in memory. Changes go to the
// disk then; where that can't be, what needs no attribute still works.
func TestMemoryWithoutAttributes(t *testing.T) {
	bothWays(t, func(t *testing.T, b *bed, idmap bool) {
		users := b.users()
		dir := diskFolder(t)
		for folder, want := range map[string]int{dir: 1, "/proc/none": 0, "": 0} {
			cr := b.writable(users, idmap)
			cr.Request.Scratch = launcher.Scratch{Folder: folder, NoAttributes: true}
			c := b.create(cr)
			if got := b.run(users, c, false, "rm -r /usr/lib && mkdir /usr/lib && ls /usr/lib; echo $?"); got != "0" {
				t.Errorf("below %q: %s", folder, got)
			}
			if n := len(scratchFolders(t, dir)); folder == dir && n != want {
				t.Errorf("below %q: %d folders", folder, n)
			}
			c.Close()
			eventually(t, "the folder is gone", func() bool { return len(scratchFolders(t, dir)) == 0 })
		}
	})
}

// A disk that the site names and that can't be used is the site's fault, said
// with what to do; nothing is left.
func TestScratchThatCannotBeUsed(t *testing.T) {
	if !launcher.PrivateMounts(t) {
		return
	}
	b := newBed(t)
	users := b.users()
	for folder, want := range map[string]string{"/proc/none": "below /proc/none: ", "": "names no folder", "/": "permission denied"} {
		c, err := b.onDisk(users, false, folder).Create(t.Context())
		if err == nil {
			c.Close()
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", folder, err, want)
		}
	}
}

// Memory is bounded, in bytes and in files, with the kernel's own word for it.
func TestMemoryLimit(t *testing.T) {
	bothWays(t, func(t *testing.T, b *bed, idmap bool) {
		users := b.users()
		for script, want := range map[string]string{
			"busybox dd if=/dev/zero of=/big bs=64k count=80 2>&1 | grep -o 'No space.*'":                              "No space left on device",
			"busybox dd if=/dev/zero of=/big bs=64k count=40 2>/dev/null; ls /big":                                     "/big",
			"mkdir /d; for i in $(busybox seq 1100); do : >/d/$i; done 2>&1 | grep -o 'No space.*' | busybox head -n1": "No space left on device",
			"mkdir /d; for i in $(busybox seq 800); do : >/d/$i; done; echo fine":                                      "fine",
			"busybox df -k / | busybox awk 'END { print $2 }'":                                                         "4096",
		} {
			cr := b.writable(users, idmap)
			cr.Request.Scratch.Memory = 4 << 20
			c := b.create(cr)
			if got := b.run(users, c, false, script); got != want {
				t.Errorf("%s:\n%s\nwant\n%s", script, got, want)
			}
			c.Close()
		}
	})
}

// The janitor is a process of the user's, and what it is asked to remove is
// below the folder that the user's own process opened.
func TestJanitorIsTheUsers(t *testing.T) {
	if !launcher.PrivateMounts(t) {
		return
	}
	b := newBed(t)
	users := b.users()
	dir := diskFolder(t)
	c, err := b.onDisk(users, false, dir).Create(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var found []string
	statuses, err := filepath.Glob("/proc/[0-9]*/status")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range statuses {
		text, err := os.ReadFile(path)
		if err == nil && strings.HasPrefix(string(text), "Name:\tberth-janitor\n") {
			found = append(found, string(text))
		}
	}
	want := fmt.Sprintf("\nUid:\t%[1]d\t%[1]d\t%[1]d\t%[1]d\n", user.UID)
	for _, status := range found {
		if !strings.Contains(status, want) {
			t.Errorf("a janitor is not the user: %s", status)
		}
	}
	if len(found) == 0 {
		t.Error("no janitor")
	}
}

// What the user's process says of its folder is taken for a name alone.
func TestJanitorTakesNames(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	b := &bed{t: t}
	c := &launcher.Creation{Exe: selfExe, Users: b.users(), Request: &launcher.Request{User: user}}
	dir, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"../x", "/etc", ".", "..", "", "a/b"} {
		if err := launcher.StartJanitor(c, t.Context(), name, dup(t, []*os.File{dir, dir})); err == nil {
			t.Errorf("%q: accepted", name)
		}
	}
	if err := launcher.StartJanitor(c, t.Context(), "x", dup(t, []*os.File{dir})); err == nil {
		t.Error("one descriptor: accepted")
	}
}
