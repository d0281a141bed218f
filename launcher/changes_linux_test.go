package launcher_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/berth-hpc/berth/launcher"
	"github.com/berth-hpc/berth/launcher/changes"
	"golang.org/x/sys/unix"
)

// newChanges makes a folder of changes that belongs to the test's user.
func newChanges(t *testing.T, dir string) string {
	t.Helper()
	for _, d := range []string{dir, filepath.Join(dir, changes.UpperName), filepath.Join(dir, changes.WorkName)} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(d, user.UID, user.GID); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// keeping is a creation whose changes are kept in dir.
func (b *bed) keeping(users *launcher.UserNamespaces, idmap bool, dir string) *launcher.Creation {
	b.t.Helper()
	cr := b.creation(users, idmap)
	cr.Request.Writable, cr.Request.Changes = true, dir
	if !idmap {
		cr.Stage.Image = nil
		cr.Request.Image = launcher.Root{Kind: launcher.RootFUSE}
		cr.Squashfs = b.image
	}
	return cr
}

func TestChangesAreKept(t *testing.T) {
	bothWays(t, func(t *testing.T, b *bed, idmap bool) {
		if !idmap {
			everyonesFUSE(t)
		}
		users := b.users()
		top := t.TempDir()
		open(t, top, filepath.Dir(top))
		dir := newChanges(t, filepath.Join(top, "a,b:c\\d")) // what overlay's options escape
		first := b.keeping(users, idmap, dir)
		first.Request.Mounts = []string{top + ":/usr/lib/point"}
		if got := b.run(users, b.create(first), false,
			"echo more >>/usr/lib/file; rm -r /root; mkdir /root /root/own; stat -c %u /root/own"); got != "62001" {
			t.Fatal(got)
		}
		cr := b.keeping(users, idmap, dir)
		cr.Request.Mounts = []string{top + ":/root/own/point:ro", top + ":/srv/new", top + ":/usr/lib/point"}
		if got := b.run(users, b.create(cr), false, "stat -c %Y /usr/lib; cat /usr/lib/file; ls /root; ls /root/own/point /srv/new"); got !=
			"1000000000\nlib\nmore\nown\n/root/own/point:\na,b:c\\d\n\n/srv/new:\na,b:c\\d" {
			t.Errorf("the next container sees\n%s", got)
		}
		// What Berth made for mounts is not among the changes, or noted.
		upper := filepath.Join(dir, changes.UpperName)
		if _, err := os.Lstat(filepath.Join(upper, "srv")); err == nil {
			t.Error("a mount point was made among the changes")
		}
		for _, name := range []string{"proc", "sys", "dev", "tmp", "etc/hosts"} {
			if _, err := os.Lstat(filepath.Join(upper, name)); err == nil {
				t.Errorf("/%s was made among the changes", name)
			}
		}
		noted, err := os.ReadFile(filepath.Join(dir, "points"))
		if err != nil || !strings.Contains(string(noted), `"root/own/point"`) || strings.Contains(string(noted), "srv") {
			t.Errorf("noted mount points: %s, %v", noted, err)
		}
	})
}

// A read-only root with changes shows them and takes no more.
func TestChangesReadOnly(t *testing.T) {
	if !launcher.PrivateMounts(t) {
		return
	}
	b := newBed(t)
	everyonesFUSE(t)
	users := b.users()
	top := t.TempDir()
	open(t, top, filepath.Dir(top))
	dir := newChanges(t, filepath.Join(top, "c"))
	if err := os.WriteFile(filepath.Join(dir, changes.UpperName, "kept"), []byte("kept\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	cr := b.keeping(users, false, dir)
	cr.Request.Writable = false
	got := b.run(users, b.create(cr), false, "cat /kept; echo x >/usr/lib/file")
	if !strings.HasPrefix(got, "kept\n") || !strings.Contains(got, "Read-only file system") {
		t.Error(got)
	}
}

// A file system that can't be an upper layer is named, with the way out.
func TestChangesOnUnusableDisk(t *testing.T) {
	if !launcher.PrivateMounts(t) {
		return
	}
	b := newBed(t)
	everyonesFUSE(t)
	users := b.users()
	for kind, mount := range map[string]func(dir string) error{
		"ramfs": func(dir string) error { return unix.Mount("r", dir, "ramfs", 0, "") },
		"another overlay": func(dir string) error {
			under := filepath.Join(filepath.Dir(dir), "under")
			if err := os.MkdirAll(under+"/u", 0o755); err != nil {
				return err
			}
			if err := os.MkdirAll(under+"/w", 0o755); err != nil {
				return err
			}
			return unix.Mount("o", dir, "overlay", 0, "lowerdir="+dir+",upperdir="+under+"/u,workdir="+under+"/w,userxattr")
		},
	} {
		t.Run(kind, func(t *testing.T) {
			top := t.TempDir()
			open(t, top, filepath.Dir(top))
			disk := filepath.Join(top, "disk")
			if err := os.Mkdir(disk, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := mount(disk); err != nil {
				t.Skip(err)
			}
			t.Cleanup(func() { _ = unix.Unmount(disk, unix.MNT_DETACH) })
			if err := os.Chmod(disk, 0o755); err != nil {
				t.Fatal(err)
			}
			_, err := b.keeping(users, false, newChanges(t, filepath.Join(disk, "c"))).Create(t.Context())
			if err == nil || !strings.Contains(err.Error(), "which is on "+kind) {
				t.Errorf("%v", err)
			}
		})
	}
}
