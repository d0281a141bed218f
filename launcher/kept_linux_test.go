package launcher_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/launcher"
	"golang.org/x/sys/unix"
)

const keptDigest = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

// named is a creation of the user's container called name, below top.
func (b *bed) named(users *launcher.UserNamespaces, idmap bool, top, name string) *launcher.Creation {
	cr := b.writable(users, idmap)
	cr.Request.Kept = &launcher.Kept{Name: name, Mode: launcher.KeptAuto, Folder: top + "/%U", OfJob: true, Reference: "x:1", Digest: keptDigest}
	cr.Request.Job.ID = "7"
	cr.Request.Label = launcher.Label{Job: "7", Name: name}
	return cr
}

// look asks what there is, in a mode.
func (b *bed) look(users *launcher.UserNamespaces, top, name, mode string, change ...func(*launcher.Request)) (*launcher.Found, error) {
	cr := b.named(users, true, top, name)
	cr.Stage.Image = nil
	cr.Request.Kept.Look, cr.Request.Kept.Mode = true, mode
	for _, f := range change {
		f(cr.Request)
	}
	ctx, cancel := context.WithTimeout(b.t.Context(), time.Minute)
	defer cancel()
	return cr.Look(ctx)
}

// leave lets go of a container that runs.
func leave(found *launcher.Found) {
	found.Container.Close()
	found.Users.Close()
}

// names is a folder like /var/tmp.
func names(t *testing.T) string {
	t.Helper()
	top := t.TempDir()
	open(t, top, filepath.Dir(top))
	if err := os.Chmod(top, 0o777|os.ModeSticky); err != nil {
		t.Fatal(err)
	}
	return top
}

func refused(t *testing.T, err error, words string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), words) || fault.Remedy(err) == "" {
		t.Errorf("%v, want: %s", err, words)
	}
}

func TestNamedContainer(t *testing.T) {
	bothWays(t, func(t *testing.T, b *bed, idmap bool) {
		top, users := names(t), b.users()
		_, err := b.look(users, top, "a", launcher.KeptExec)
		refused(t, err, "a does not run in this job")
		_, err = b.look(users, top, "../a", launcher.KeptAuto)
		refused(t, err, "not a name")
		if found, err := b.look(users, top, "a", launcher.KeptCreate); err != nil || found.Running || found.Reference != "" {
			t.Fatalf("%+v, %v", found, err)
		}
		c := b.create(b.named(users, idmap, top, "a"))
		if got := b.run(users, c, false, "echo kept >/f; rm -r /root; mkdir /root"); got != "" {
			t.Fatal(got)
		}

		t.Run("joined", func(t *testing.T) {
			end, stop := context.WithCancel(t.Context())
			task := b.command(end, users, c, false, "echo up >/up; sleep 100")
			if err := task.Start(); err != nil {
				t.Fatal(err)
			}
			found, err := b.look(users, top, "a", launcher.KeptExec)
			for limit := time.Now().Add(20 * time.Second); err != nil && time.Now().Before(limit); {
				found, err = b.look(users, top, "a", launcher.KeptExec)
			}
			if err != nil || !found.Running {
				t.Fatalf("%+v, %v", found, err)
			}
			if got := b.run(found.Users, found.Container, false, "cat /f"); got != "kept" {
				t.Error(got)
			}
			leave(found)
			_, err = b.look(users, top, "a", launcher.KeptCreate)
			refused(t, err, "exists already")
			_, err = b.look(users, top, "a", launcher.KeptNoExec)
			refused(t, err, "in use by this job")
			_, err = b.look(users, top, "a", launcher.KeptAuto, func(r *launcher.Request) { r.Unshare = []string{"ipc"} })
			refused(t, err, "not in a separate IPC namespace")
			_, err = b.look(users, top, "6.0", launcher.KeptAuto)
			refused(t, err, "not of this job, 7")
			if _, err := b.named(users, idmap, top, "a").Create(t.Context()); !errors.Is(err, launcher.ErrKeptInUse) {
				t.Errorf("made while it runs: %v", err)
			}
			stop()
			_ = task.Wait()
		})

		// As long as the container can still be joined nobody else starts it.
		if _, err := b.named(users, idmap, top, "a").Create(t.Context()); !errors.Is(err, launcher.ErrKeptInUse) {
			t.Errorf("made while its namespace is open: %v", err)
		}
		c.Close()
		found, err := b.look(users, top, "a", launcher.KeptAuto)
		if err != nil || found.Running || found.Reference != "x:1" || found.Digest != keptDigest {
			t.Fatalf("%+v, %v", found, err)
		}
		_, err = b.look(users, top, "a", launcher.KeptCreate)
		refused(t, err, "exists already")
		other := b.named(users, idmap, top, "a")
		other.Request.Kept.Reference = "y:1"
		if _, err := other.Create(t.Context()); !errors.Is(err, launcher.ErrKeptInUse) {
			t.Errorf("changes to x:1 with image y:1: %v", err)
		}
		c = b.create(b.named(users, idmap, top, "a"))
		if got := b.run(users, c, false, "cat /f; ls -a /root | wc -l"); got != "kept\n2" {
			t.Error(got)
		}

		t.Run("a failure leaves none", func(t *testing.T) {
			cr := b.named(users, idmap, top, "new")
			cr.Request.Mounts = []string{"/nosuch:/x"}
			if _, err := cr.Create(t.Context()); err == nil {
				t.Error("made")
			}
			if found, err := b.look(users, top, "new", launcher.KeptCreate); err != nil || found.Reference != "" {
				t.Errorf("%+v, %v", found, err)
			}
		})
		t.Run("forgotten", func(t *testing.T) {
			cr := b.named(users, idmap, top, "a")
			cr.Request.Kept.Forget = true
			if err := launcher.Forget(t.Context(), selfExe, users.Outer, cr.Request); err != nil {
				t.Error(err)
			}
			if entries, err := os.ReadDir(filepath.Join(top, "62001")); err != nil || len(entries) != 0 {
				t.Errorf("%v, %v", entries, err)
			}
		})
	})
}

// Nobody's names are in a folder where somebody else can put files.
func TestNamesOfOthers(t *testing.T) {
	bothWays(t, func(t *testing.T, b *bed, idmap bool) {
		for _, tc := range []struct {
			name string
			make func(dir string) error
		}{
			{"another's", func(dir string) error { return os.Mkdir(dir, 0o777) }},
			{"open to all", func(dir string) error {
				return errors.Join(os.Mkdir(dir, 0o700), os.Chmod(dir, 0o777), os.Chown(dir, user.UID, user.GID))
			}},
			{"a link", func(dir string) error {
				real := filepath.Join(filepath.Dir(dir), "real")
				return errors.Join(os.Mkdir(real, 0o700), os.Chown(real, user.UID, user.GID), os.Symlink(real, dir), os.Lchown(dir, user.UID, user.GID))
			}},
		} {
			t.Run(tc.name, func(t *testing.T) {
				top := names(t)
				if err := tc.make(filepath.Join(top, "62001")); err != nil {
					t.Fatal(err)
				}
				_, err := b.named(b.users(), idmap, top, "a").Create(t.Context())
				refused(t, err, "not a folder that is the user's alone")
			})
		}
	})
}

func TestNamesQuotaAndExpiry(t *testing.T) {
	bothWays(t, func(t *testing.T, b *bed, idmap bool) {
		top, users := names(t), b.users()
		global := func(name string) *launcher.Creation {
			cr := b.named(users, idmap, top, name)
			cr.Request.Kept.OfJob = false
			return cr
		}
		c := b.create(global("old"))
		if got := b.run(users, c, false, "dd if=/dev/zero of=/big bs=1M count=3 2>/dev/null"); got != "" {
			t.Fatal(got)
		}
		_, err := b.look(users, top, "old", launcher.KeptAuto, func(r *launcher.Request) { r.Kept.OfJob, r.Job.ID = false, "8" })
		refused(t, err, "in use by job 7")
		c.Close()
		full := func(expiry time.Duration) *launcher.Creation {
			cr := global("more")
			cr.Request.Kept.Quota, cr.Request.Kept.Expiry = 2_000_000, expiry
			return cr
		}
		_, err = full(0).Create(t.Context())
		refused(t, err, "and 2 MB are allowed")
		if found, err := b.look(users, top, "old", launcher.KeptAuto, func(r *launcher.Request) { r.Kept.OfJob = false }); err != nil || found.Reference == "" {
			t.Fatalf("%+v, %v", found, err) // and waits until it is not in use
		}
		day := time.Now().Add(-25 * time.Hour)
		lock := filepath.Join(top, "62001/containers/old/lock")
		if err := os.Chtimes(lock, day, day); err != nil {
			t.Fatal(err)
		}
		_, err = full(48 * time.Hour).Create(t.Context())
		refused(t, err, "and 2 MB are allowed")
		b.create(full(24 * time.Hour))
		if _, err := os.Stat(lock); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("what has expired is still there: %v", err)
		}
	})
}

func duplicates(t *testing.T, files []*os.File) []*os.File {
	t.Helper()
	var out []*os.File
	for _, f := range files {
		fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, os.NewFile(uintptr(fd), f.Name()))
	}
	return out
}

// What the user's process hands over is taken for what the kernel says it is.
func TestForgedFound(t *testing.T) {
	bothWays(t, func(t *testing.T, b *bed, idmap bool) {
		users := b.users()
		c := b.create(b.creation(users, idmap))
		host, err := os.Open("/proc/self/ns/mnt")
		if err != nil {
			t.Fatal(err)
		}
		defer host.Close()
		hostUser, err := os.Open("/proc/self/ns/user")
		if err != nil {
			t.Fatal(err)
		}
		defer hostUser.Close()
		stranger := user
		stranger.UID++
		for name, tc := range map[string]struct {
			found launcher.Found
			files []*os.File
			user  launcher.User
			good  bool
			words string
		}{
			"as it is":          {files: []*os.File{c.Mount, c.Result, users.Outer, users.Inner}, user: user, good: true},
			"another's":         {files: []*os.File{c.Mount, c.Result, users.Outer, users.Inner}, user: stranger},
			"another's root":    {found: launcher.Found{Remap: true}, files: []*os.File{c.Mount, c.Result, users.Outer, users.Outer}, user: stranger},
			"no N2":             {files: []*os.File{c.Mount, c.Result, users.Outer, users.Outer}, user: user},
			"the node's users":  {found: launcher.Found{Remap: true}, files: []*os.File{c.Mount, c.Result, hostUser, hostUser}, user: user},
			"no mounts":         {files: []*os.File{users.Outer, c.Result, users.Outer, users.Inner}, user: user},
			"too few":           {files: []*os.File{c.Mount, c.Result}, user: user},
			"another kind":      {found: launcher.Found{Unshare: []string{"ipc"}}, files: []*os.File{c.Mount, c.Result, users.Outer, users.Inner, users.Inner}, user: user},
			"a pid namespace":   {found: launcher.Found{Unshare: []string{"pid"}}, files: []*os.File{c.Mount, c.Result, users.Outer, users.Inner}, user: user, words: "pid namespace of its own"},
			"the node's mounts": {files: []*os.File{host, c.Result, users.Outer, users.Inner}, user: user},
		} {
			t.Run(name, func(t *testing.T) {
				if err := launcher.TakeFound(&tc.found, duplicates(t, tc.files), tc.user); (err == nil) != tc.good || err != nil && !strings.Contains(err.Error(), tc.words) {
					t.Errorf("%v", err)
				}
			})
		}
	})
}
