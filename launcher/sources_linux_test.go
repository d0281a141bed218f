package launcher_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/berth-hpc/berth/launcher"
	"golang.org/x/sys/unix"
)

// hostFolder is a folder of the node that no default mount shows, with the
// folders and files named in it; a name that ends with a slash is a folder.
func hostFolder(t *testing.T, names ...string) string {
	t.Helper()
	dir, err := os.MkdirTemp("/srv", "berth-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	open(t, dir)
	for _, name := range names {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(name, "/") {
			err = os.MkdirAll(path, 0o755)
		} else {
			err = os.WriteFile(path, []byte(name+"\n"), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// try runs a script in a container with these changes to the request; a
// container that is refused gives its error.
func (b *bed) try(users *launcher.UserNamespaces, idmap bool, script string, change func(*launcher.Request)) string {
	b.t.Helper()
	cr := b.creation(users, idmap)
	change(cr.Request)
	ctx, cancel := context.WithTimeout(b.t.Context(), 30*time.Second)
	defer cancel()
	c, err := cr.Create(ctx)
	if err != nil {
		return err.Error()
	}
	defer c.Close()
	out := b.run(users, c, false, script)
	if len(c.Notes) > 0 {
		out += "\nnote: " + strings.Join(c.Notes, "\nnote: ")
	}
	return out
}

// The site's rules hold for what a source really is.
func TestMountRules(t *testing.T) {
	bothWays(t, func(t *testing.T, b *bed, idmap bool) {
		users := b.users()
		dir := hostFolder(t, "secret/s", "db/d", "data/x", "data/sub/", "secretary/y")
		for link, to := range map[string]string{
			"innocent": "secret", "data/up": "../secret/s", "real-db": "db", "data/sub/far": dir + "/innocent",
		} {
			if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Chmod(filepath.Join(dir, "db"), 0o777); err != nil {
			t.Fatal(err)
		}
		denied := launcher.MountRules{Deny: []string{dir + "/secret"}}
		byLink := launcher.MountRules{Deny: []string{dir + "/innocent"}}
		allowed := launcher.MountRules{Allow: []string{dir + "/data"}}
		readonly := launcher.MountRules{ReadOnly: []string{dir + "/real-db"}}
		const no = "the site does not let users mount it"
		for name, tc := range map[string]struct {
			rules         launcher.MountRules
			mount, script string
			want          string
		}{
			"denied":            {denied, "secret", "cat /x/s", no},
			"below":             {denied, "secret/s", "cat /x", no},
			"by a link":         {denied, "innocent", "cat /x/s", "/innocent (it is " + dir + "/secret): " + no},
			"by a link below":   {denied, "data/up", "cat /x", no},
			"by two links":      {denied, "data/sub/far/s", "cat /x", no},
			"by dots":           {denied, "data/../secret", "cat /x/s", no},
			"above":             {denied, "", "cat /x/secret/s", no},
			"a longer name":     {denied, "secretary", "cat /x/y", "secretary/y"},
			"beside":            {denied, "data", "cat /x/x", "data/x"},
			"the rule's a link": {byLink, "secret", "cat /x/s", no},
			"allowed":           {allowed, "data/x", "cat /x", "data/x"},
			"not allowed":       {allowed, "db", "cat /x/d", "only what is below " + dir + "/data"},
			"allowed, a link":   {allowed, "data/up", "cat /x", "only what is below"},
			"above the allowed": {allowed, "", "cat /x/data/x", "only what is below"},
			"read-only":         {readonly, "db", "touch /x/new", "Read-only file system"},
			"read-only, rw":     {readonly, "db:rw", "touch /x/new", "Read-only file system"},
			"above read-only":   {readonly, "", "touch /x/db/new", "Read-only file system"},
			"not read-only":     {launcher.MountRules{}, "db", "touch /x/new && rm /x/new && echo fine", "fine"},
			"forbidden":         {launcher.MountRules{Forbid: true}, "data", "cat /x/x", "does not let users mount paths of the node"},
		} {
			source, flags, _ := strings.Cut(tc.mount, ":")
			mount := strings.TrimSuffix(filepath.Join(dir, source)+":/x:"+flags, ":")
			got := b.try(users, idmap, tc.script, func(r *launcher.Request) {
				r.Mounts, r.Site.Rules, r.Site.MountTimeout = []string{mount}, tc.rules, 10*time.Second
			})
			if !strings.Contains(got, tc.want) {
				t.Errorf("%s: %s\nwant %s", name, got, tc.want)
			}
		}
		if got := b.try(users, idmap, "cat "+dir+"/secret/s; echo $?", func(r *launcher.Request) {
			r.Site.Rules, r.Site.Mounts = launcher.MountRules{Forbid: true}, []string{dir + "/secret"}
		}); got != "secret/s\n0" {
			t.Errorf("the site's own mount: %s", got)
		}
		for _, job := range []launcher.Job{{Dir: dir + "/innocent"}, {TmpDir: dir + "/secret"}, {PMIx: dir + "/secret"}, {PrologFile: []string{dir + "/data/up"}}} {
			if got := b.try(users, idmap, "cat "+dir+"/innocent/s "+dir+"/secret/s "+dir+"/data/up", func(r *launcher.Request) {
				r.Job, r.Site.Rules, r.MountDir = job, denied, true
			}); strings.Contains(got, "\nsecret/s") || !strings.Contains(got, "No such file") {
				t.Errorf("shown by the job's environment %+v: %s", job, got)
			}
		}
	})
}

// The admin's paths are completed; nodes may lack what is not required.
func TestSiteMounts(t *testing.T) {
	if !launcher.PrivateMounts(t) {
		return
	}
	b := newBed(t)
	users := b.users()
	dir := hostFolder(t, "u/user62001/mine", "n/62001/number", "j/77.node/job", "g/x")
	for name, tc := range map[string]struct{ mount, job, want string }{
		"user":          {dir + "/u/%u:/s", "", "mine"},
		"number":        {dir + "/n/%U:/s:ro", "", "number"},
		"job":           {dir + "/j/%j:/s", "77.node", "job"},
		"no job":        {dir + "/j/%j:/s", "", "ls: /s: No such file or directory"},
		"no such job":   {dir + "/j/%j:/s", "78", "ls: /s: No such file or directory"},
		"a job's trick": {dir + "/j/%j:/s", "../g", "ls: /s: No such file or directory"},
		"another trick": {dir + "/j/%j", "77.node:/s", "ls: /s: No such file or directory"},
		"optional":      {dir + "/none:/s:optional", "", "ls: /s: No such file or directory"},
		"required":      {dir + "/none:/s:ro+required", "", "mount: source path does not exist: " + dir + "/none"},
		"there":         {dir + "/g:/s:required", "", "x"},
		"wrong":         {dir + "/g:/s:zz", "", `the site's mount "` + dir + `/g:/s:zz": unknown flag "zz"`},
	} {
		got := b.try(users, false, "ls /s", func(r *launcher.Request) {
			r.Site.Mounts, r.Job.ID, r.User.Name = []string{tc.mount}, tc.job, ""
		})
		if strings.TrimSuffix(got, "\n[exit status 1]") != tc.want {
			t.Errorf("%s: %s\nwant %s", name, got, tc.want)
		}
	}
}

// silentFUSE mounts a file system at dir whose server says nothing: what a
// dead NFS server or a vanished automounter looks like.
func silentFUSE(t *testing.T, dir string) {
	t.Helper()
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Skip(err)
	}
	data := fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other", fd)
	if err := unix.Mount("silent", dir, "fuse", 0, data); err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() {
		unix.Close(fd) // ends the connection, and with it who waits for an answer
		_ = unix.Unmount(dir, unix.MNT_DETACH)
	})
}

// A source that does not answer hangs nothing.
func TestSourceHangs(t *testing.T) {
	bothWays(t, func(t *testing.T, b *bed, idmap bool) {
		users := b.users()
		dir := hostFolder(t, "hung/", "fine/x")
		hung := dir + "/hung"
		silentFUSE(t, hung)
		const limit = 500 * time.Millisecond
		for name, tc := range map[string]struct {
			change func(*launcher.Request)
			want   string
		}{
			"the user's": {
				func(r *launcher.Request) { r.Mounts = []string{hung + ":/x"} },
				"mount: source path " + hung + ": it did not answer within 500ms",
			},
			"below it": {
				func(r *launcher.Request) { r.Mounts = []string{hung + "/a/b:/x"} },
				"it did not answer within 500ms",
			},
			"the site's": {
				func(r *launcher.Request) { r.Site.Mounts = []string{hung + ":/x", dir + "/fine:/y"} },
				"x\nnote: " + hung + " is not in the container: it did not answer within 500ms",
			},
			"the site's, required": {
				func(r *launcher.Request) { r.Site.Mounts = []string{hung + ":/x:required"} },
				"it did not answer within 500ms",
			},
			"the job's folder": {
				func(r *launcher.Request) { r.Job.Dir, r.MountDir, r.Mounts = hung, true, []string{dir + "/fine:/y"} },
				"x\nnote: " + hung + " is not in the container",
			},
			"a rule": {
				func(r *launcher.Request) {
					r.Site.Rules, r.Mounts = launcher.MountRules{Deny: []string{hung + "/a"}}, []string{dir + "/fine:/y"}
				},
				"a path of the site's rules does not answer",
			},
		} {
			begin := time.Now()
			got := b.try(users, idmap, "ls /y", func(r *launcher.Request) {
				r.Site.MountTimeout = limit
				tc.change(r)
			})
			if !strings.Contains(got, tc.want) {
				t.Errorf("%s: %s\nwant %s", name, got, tc.want)
			}
			if d := time.Since(begin); d > 10*time.Second {
				t.Errorf("%s: took %v", name, d)
			}
		}
	})
}

// Who gives up while a source hangs, as a step's helper does when its tasks
// are cancelled, is not kept.
func TestSourceHangsAndIsCancelled(t *testing.T) {
	if !launcher.PrivateMounts(t) {
		return
	}
	b := newBed(t)
	dir := hostFolder(t, "hung/")
	silentFUSE(t, dir+"/hung")
	cr := b.creation(b.users(), false)
	cr.Request.Mounts = []string{dir + "/hung:/x"}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	begin := time.Now()
	if c, err := cr.Create(ctx); err == nil {
		c.Close()
		t.Error("a container with a source that never answered")
	}
	if d := time.Since(begin); d > 10*time.Second {
		t.Errorf("took %v", d)
	}
}

// A source that the user alone may read, not even root, as on a file system
// with root_squash: root never looks at it.
func TestSourceForTheUserAlone(t *testing.T) {
	bothWays(t, func(t *testing.T, b *bed, idmap bool) {
		dir := hostFolder(t, "own/")
		own := dir + "/own"
		serveAs(t, own, b.image.Name(), user.UID)
		if _, err := os.Stat(own); err == nil {
			t.Fatal("root can read it: this test proves nothing")
		}
		got := b.try(b.users(), idmap, "cat /x/usr/lib/file", func(r *launcher.Request) { r.Mounts = []string{own + ":/x"} })
		if got != "lib" {
			t.Error(got)
		}
	})
}

// serveAs serves the squashfs file image at dir, to this user alone.
func serveAs(t *testing.T, dir, image string, uid int) {
	t.Helper()
	dev, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		t.Skip(err)
	}
	defer dev.Close()
	file, err := os.Open(image)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	data := fmt.Sprintf("fd=%d,rootmode=40000,user_id=%d,group_id=%d", dev.Fd(), uid, uid)
	if err := unix.Mount("own", dir, "fuse", unix.MS_RDONLY, data); err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) }) // ends the server
	cmd := exec.CommandContext(t.Context(), "squashfuse_ll", "/proc/self/fd/3", "/dev/fd/4")
	cmd.ExtraFiles = []*os.File{file, dev}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
}

// What the node mounts later below a folder that a container shows appears in
// it, as an automounter's file systems do.
func TestLateMounts(t *testing.T) {
	bothWays(t, func(t *testing.T, b *bed, idmap bool) {
		users := b.users()
		dir := hostFolder(t, "site/late/", "user/late/")
		for _, d := range []string{"site", "user"} { // shared, as systemd makes all mounts
			path := filepath.Join(dir, d)
			if err := unix.Mount(path, path, "", unix.MS_BIND, ""); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = unix.Unmount(path, unix.MNT_DETACH) })
			if err := unix.Mount("", path, "", unix.MS_SHARED, ""); err != nil {
				t.Fatal(err)
			}
		}
		cr := b.creation(users, idmap)
		cr.Request.Site.Mounts = []string{dir + "/site:" + dir + "/site:ro"}
		cr.Request.Mounts = []string{dir + "/user:/mine", dir + "/user:/closed:private"}
		c := b.create(cr)
		for _, d := range []string{"site", "user"} {
			late := filepath.Join(dir, d, "late")
			if err := unix.Mount("late", late, "tmpfs", 0, ""); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = unix.Unmount(late, unix.MNT_DETACH) })
			if err := os.WriteFile(filepath.Join(late, "f"), []byte("late\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		got := b.run(users, c, false, "cat "+dir+"/site/late/f /mine/late/f /closed/late/f")
		if got != "late\nlate\ncat: can't open '/closed/late/f': No such file or directory\n[exit status 1]" {
			t.Error(got)
		}
		for _, d := range []string{"site", "user"} {
			if err := unix.Unmount(filepath.Join(dir, d, "late"), 0); err != nil {
				t.Errorf("the container keeps the node from unmounting: %v", err)
			}
		}
	})
}

// The host's time zone is in the container, and the zone that the image's own
// link names stays what it is.
func TestTimeZone(t *testing.T) {
	bothWays(t, func(t *testing.T, b *bed, idmap bool) {
		zone := filepath.Join(t.TempDir(), "zone")
		if err := os.WriteFile(zone, []byte("the host's zone\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount(zone, "/etc/localtime", "", unix.MS_BIND, ""); err != nil {
			t.Skip(err)
		}
		t.Cleanup(func() { _ = unix.Unmount("/etc/localtime", unix.MNT_DETACH) })
		got := b.try(b.users(), idmap, "cat /etc/localtime /usr/share/zoneinfo/UTC; ls /etc/zone", func(*launcher.Request) {})
		if got != "the host's zone\nUTC\n/etc/zone" {
			t.Error(got)
		}
	})
}

// tmpfs and umount.
func TestOtherMounts(t *testing.T) {
	if !launcher.PrivateMounts(t) {
		return
	}
	b := newBed(t)
	users := b.users()
	for mounts, tc := range map[string]struct{ script, want string }{
		"tmpfs:/s:size=1m+mode=0750":     {"stat -c %a /s; touch /s/x && grep ' /s ' /proc/mounts | grep -c size=1024k", "750\n1"},
		"tmpfs:/s:ro":                    {"touch /s/x", "touch: /s/x: Read-only file system\n[exit status 1]"},
		"tmpfs:/s:noexec":                {"cat /bin/busybox >/s/b; chmod 755 /s/b; /s/b true", "/bin/sh: /s/b: Permission denied\n[exit status 126]"},
		"tmpfs:/s:zz=1":                  {"true", `mount tmpfs:/s with "zz=1": invalid argument`},
		"umount:/tmp":                    {"ls /tmp", "ls: /tmp: No such file or directory\n[exit status 1]"},
		"umount:/etc/hosts,tmpfs:/etc/x": {"ls /etc/hosts /etc/x", "ls: /etc/hosts: No such file or directory\n/etc/x:\n[exit status 1]"},
		"/usr:/u:noexec+ro":              {"/u/bin/env true 2>&1 | grep -c -i denied", "1"},
	} {
		got := b.try(users, false, tc.script, func(r *launcher.Request) { r.Mounts = []string{mounts} })
		if !strings.Contains(got, tc.want) {
			t.Errorf("%s: %s\nwant %s", mounts, got, tc.want)
		}
	}
}
