package launcher_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/berth-hpc/berth/launcher"
	"golang.org/x/sys/unix"
)

// ranged is the test's user with further ids.
func ranged() launcher.User {
	u := user
	u.SubIDs = launcher.SubIDs{UIDs: launcher.IDRange{Start: 200000, Count: 65536}, GIDs: launcher.IDRange{Start: 300000, Count: 65536}}
	return u
}

func (b *bed) usersOf(u launcher.User) *launcher.UserNamespaces {
	b.t.Helper()
	users, err := launcher.NewUserNamespaces(b.t.Context(), selfExe, u)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(users.Close)
	return users
}

// With further ids, root in appearance gives files away for real, becomes
// others for real, and neither beyond what is theirs. What is left on the disk
// is removed with the container.
func TestSubIDs(t *testing.T) {
	bothWays(t, func(t *testing.T, b *bed, idmap bool) {
		users := b.usersOf(ranged())
		dir := diskFolder(t)
		_, calls := buildCalls(t)
		cr := b.onDisk(users, idmap, dir)
		cr.Request.RemapRoot, cr.Request.Mounts = true, []string{calls + ":/calls:ro"}
		c, err := cr.Create(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, step := range []struct {
			remap        bool
			script, want string
		}{
			{true, "mkdir /d && touch /d/f && busybox chown 5:6 /d/f /d && busybox chmod 700 /d && stat -c %u:%g /d/f", "5:6"},
			{true, "touch /g && busybox chgrp 62100 /g && stat -c %g /g && busybox chgrp 62099 /g && stat -c %g /g", "62100\n62099"},
			{true, "busybox chown 65536 /g && busybox chown 65537 /g", "chown: /g: Invalid argument\n[exit status 1]"},
			{true, "mkdir -m 777 /c; /calls/calls /c | grep -E '^(setgroups|setresgid|setresuid|mknod c|who) '", "setgroups 0\nsetresgid 0\nsetresuid 0\nmknod c 1\nwho 7"},
			{true, "grep ^Seccomp: /proc/self/status", "Seccomp:\t0"},
			{false, "stat -c %u:%g /d; grep CapEff /proc/self/status", "65534:65534\nCapEff:\t0000000000000000"},
			{false, "busybox chown 5 /g 2>/dev/null || echo no; touch /d/f 2>/dev/null || echo no", "no\nno"},
		} {
			if got := b.run(users, c, step.remap, step.script); got != step.want {
				t.Errorf("%s:\n%s\nwant\n%s", step.script, got, step.want)
			}
		}
		var d, g unix.Stat_t
		made := scratchFolders(t, dir)
		if len(made) != 1 || unix.Stat(made[0]+"/upper/d", &d) != nil || unix.Stat(made[0]+"/upper/g", &g) != nil {
			t.Fatalf("the container's folder: %q", made)
		}
		if d.Uid != 200004 || d.Gid != 300005 || g.Uid != 265535 || g.Gid != 362098 {
			t.Errorf("on the node they are %d:%d and %d:%d", d.Uid, d.Gid, g.Uid, g.Gid)
		}
		c.Close()
		eventually(t, "the folder is gone", func() bool { return len(scratchFolders(t, dir)) == 0 })
	})
}

// The node's folders can't be written to with further ids, unless the site
// allows it, and the places for temporary files are the container's own.
func TestSubIDsAndTheNode(t *testing.T) {
	bothWays(t, func(t *testing.T, b *bed, idmap bool) {
		users := b.usersOf(ranged())
		dir := diskFolder(t)
		for _, tc := range []struct {
			allow, remap bool
			mounts       string
			script, want string
		}{
			{false, true, dir + ":/in:ro", "touch /in/x 2>/dev/null || echo ro; touch /tmp/x /var/tmp/x /dev/shm/x && busybox chown 9 /tmp/x && ls /tmp", "ro\nx"},
			{false, true, "tmpfs:/in", "touch /in/x && echo fine", "fine"},
			{false, false, dir + ":/in", "touch /in/mine && echo fine", "fine"},
			{true, true, dir + ":/in", "touch /in/theirs && busybox chown 5:6 /in/theirs && echo fine", "fine"},
		} {
			cr := b.writable(users, idmap)
			cr.Request.RemapRoot, cr.Request.Site.SubIDMounts, cr.Request.Mounts = tc.remap, tc.allow, []string{tc.mounts}
			c := b.create(cr)
			if got := b.run(users, c, tc.remap, tc.script); got != tc.want {
				t.Errorf("%+v:\n%s", tc, got)
			}
			c.Close()
		}
		var st unix.Stat_t
		if err := unix.Stat(filepath.Join(dir, "theirs"), &st); err != nil || st.Uid != 200004 {
			t.Errorf("what the site allows: uid %d, %v", st.Uid, err)
		}
		cr := b.writable(users, idmap)
		cr.Request.RemapRoot, cr.Request.Mounts = true, []string{dir + ":/in"}
		c, err := cr.Create(t.Context())
		if err == nil {
			c.Close()
		}
		if err == nil || !strings.Contains(err.Error(), "further ids") {
			t.Errorf("a writable mount: %v", err)
		}
	})
}

// A user's groups are shown as themselves, also where the range has their
// numbers inside or outside, and any number of them makes a map.
func TestSubIDsAndManyGroups(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	for name, groups := range map[string]func(i int) int{
		"inside the range": func(i int) int { return 1 + 3*i }, "far above": func(i int) int { return 1_000_000_000 + i },
		"in the node's range": func(i int) int { return 300000 + i }, "one after the other": func(i int) int { return 65000 + i },
	} {
		u := ranged()
		u.Groups = nil
		for i := range 1000 {
			u.Groups = append(u.Groups, groups(i))
		}
		users, err := launcher.NewUserNamespaces(t.Context(), selfExe, u)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		users.Close()
	}
}
