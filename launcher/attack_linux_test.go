package launcher_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/launcher"
	"golang.org/x/sys/unix"
)

// attackStage runs where `berth-create inside` runs: as the user with every
// capability in N1, in the mount namespace copied from root's stage. A user
// can take that process over (it is theirs), so this is what they may try.
func attackStage(channel *os.File) {
	req, _, err := launcher.ReceiveRequest(channel)
	if err != nil {
		os.Exit(1)
	}
	image := req.Image.Path
	report := []string{
		try("remount", unix.Mount("", image, "", unix.MS_REMOUNT|unix.MS_BIND, "")),
		try("clear", clearFlags(unix.AT_FDCWD, image)),
		try("clear-copy", clearCopy(image)),
		try("bind-remount", bindRemount(image, req.Work)),
		try("unmount", unix.Unmount(image, unix.MNT_DETACH)),
		try("uncover", unix.Unmount(filepath.Dir(image), unix.MNT_DETACH)),
		try("write", touch(filepath.Join(image, "x"))),
		try("device", read(filepath.Join(image, "zero"))),
		try("own-device", ownDevice(req.Work)),
		"setuid:" + runSetuid(filepath.Join(image, "bin/setuid")),
	}
	reply := &launcher.Reply{Failure: &fault.Message{Text: strings.Join(report, "; "), Blame: "user"}}
	if launcher.SendReply(channel, reply) != nil {
		os.Exit(1)
	}
	os.Exit(0)
}

func try(what string, err error) string { return fmt.Sprintf("%s:%v", what, err) }

func clearFlags(dir int, path string) error {
	attr := unix.MountAttr{Attr_clr: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV}
	return unix.MountSetattr(dir, path, unix.AT_EMPTY_PATH, &attr)
}

func clearCopy(image string) error {
	fd, err := unix.OpenTree(unix.AT_FDCWD, image, unix.OPEN_TREE_CLONE)
	if err != nil {
		return err
	}
	return clearFlags(fd, "")
}

func bindRemount(image, dir string) error {
	if err := unix.Mount(image, dir, "", unix.MS_BIND, ""); err != nil {
		return err
	}
	defer func() { _ = unix.Unmount(dir, unix.MNT_DETACH) }()
	return unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_BIND, "")
}

func touch(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err.(*os.PathError).Err //nolint:errorlint // always one
	}
	return f.Close()
}

func read(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err.(*os.PathError).Err //nolint:errorlint // always one
	}
	return f.Close()
}

// ownDevice makes a device node on a file system of the user's own.
func ownDevice(dir string) error {
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, ""); err != nil {
		return err
	}
	return unix.Mknod(filepath.Join(dir, "d"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 5)))
}

// runSetuid returns the effective uid that a setuid-root program gets, as
// root's side of the node sees it: 0 in N1 is the user.
func runSetuid(path string) string {
	cmd := exec.Command(path, "id", "-u")
	cmd.Args[0] = "busybox"
	out, err := cmd.CombinedOutput()
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(out))
}

func TestStageFlagsAreLocked(t *testing.T) {
	bothWays(t, func(t *testing.T, b *bed, idmap bool) {
		cr := b.creation(b.users(), idmap)
		cr.Exe = attackBuilder(t, "attack")
		_, err := cr.Create(t.Context())
		want := strings.Join([]string{
			"remount:operation not permitted",
			"clear:operation not permitted",
			"clear-copy:operation not permitted",
			"bind-remount:operation not permitted",
			"unmount:invalid argument",
			"uncover:invalid argument",
			"write:read-only file system",
			"device:permission denied",
			"own-device:operation not permitted",
			"setuid:0", // 0 in N1, the user outside
		}, "; ")
		if err == nil || err.Error() != want {
			t.Errorf("got\n%v\nwant\n%s", err, want)
		}
	})
}

// A task that appears as root holds capabilities over its own container. What
// root gave it must hold all the same.
func TestRemappedTaskGainsNothing(t *testing.T) {
	bothWays(t, func(t *testing.T, b *bed, idmap bool) {
		users := b.users()
		cr := b.creation(users, idmap)
		c := b.create(cr)
		for script, want := range map[string]string{
			"id -u": "0",
			"mount -o remount,rw,bind / ; touch /usr/lib/x": "touch: /usr/lib/x: Read-only file system\n[exit status 1]",
			"mount -o remount,dev,suid,bind / ; cat </zero": "/bin/sh: can't open /zero: Permission denied\n[exit status 1]",
			"umount /dev/pts":                   "umount: can't unmount /dev/pts: Invalid argument\n[exit status 1]",
			"cat /etc/shadow /proc/1/environ":   "cat: can't open '/etc/shadow': No such file or directory\ncat: can't open '/proc/1/environ': Permission denied\n[exit status 1]",
			"chown 1 /tmp; stat -c %u /tmp":     "65534", // still the node's root's
			"mknod /tmp/dev c 1 5; ls /tmp/dev": "ls: /tmp/dev: No such file or directory\n[exit status 1]",
		} {
			if got := b.run(users, c, true, script); got != want {
				t.Errorf("%s:\n%s\nwant\n%s", script, got, want)
			}
		}
	})
}

// The root of a writable container is a mount of the user's own, so a task that
// appears as root may clear its flags. Devices stay shut, because the file
// system belongs to their user namespace, and setuid files give no id that the
// user has not.
func TestFlagsOfTheirOwnRoot(t *testing.T) {
	bothWays(t, func(t *testing.T, b *bed, idmap bool) {
		users := b.users()
		cr := b.writable(users, idmap)
		cr.Request.RemapRoot = true
		c := b.create(cr)
		for _, step := range []struct {
			remap        bool
			script, want string
		}{
			{true, "mount -o remount,dev,suid / && grep ' / / ' /proc/self/mountinfo | grep -c nodev", "0\n[exit status 1]"},
			{true, "cat </zero", "/bin/sh: can't open /zero: Permission denied\n[exit status 1]"},
			{true, "mknod /made c 1 5; cat </made", "/bin/sh: can't open /made: no such file\n[exit status 1]"},
			{false, "cat </zero", "/bin/sh: can't open /zero: Permission denied\n[exit status 1]"},
			{false, "mkdir /l; ln -s /bin/setuid /l/id; /l/id -u; rm -r /l", "62001"},
			{true, "cp /bin/busybox /su && chmod 6755 /su && chown 0 /su", ""},
			{false, "ln -s /su /id; /id -u; rm /id", "62001"},
			{true, "mkdir /t; mount -t tmpfs -o dev x /t && mknod /t/d b 7 0; ls /t", ""},
		} {
			if got := b.run(users, c, step.remap, step.script); got != step.want {
				t.Errorf("%s:\n%s\nwant\n%s", step.script, got, step.want)
			}
		}
	})
}

// Root enters no mount namespace that a user made.
func TestStageRefusesAUsersView(t *testing.T) {
	if !launcher.PrivateMounts(t) {
		return
	}
	b := newBed(t)
	users := b.users()
	c := b.create(b.creation(users, false))
	if err := launcher.CheckHostMountNamespace(c.Mount); err == nil {
		t.Error("accepted the mount namespace of a container")
	}
	if err := launcher.CheckHostMountNamespace(users.Outer); err == nil {
		t.Error("accepted a user namespace")
	}
	cr := b.creation(users, false)
	cr.Stage.View = c.Mount
	if c, err := cr.Create(t.Context()); err == nil {
		c.Close()
		t.Error("made a container from a user's mount namespace")
	}
}

// The process that sends the user namespaces runs as the user: what it sends
// is checked for type, owner and parent.
func TestUserNamespacesAreChecked(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	b := &bed{t: t}
	good, other := b.users(), b.users()
	null, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	for name, files := range map[string][]*os.File{
		"no namespace": {null, null}, "one": {good.Outer}, "of two pairs": {good.Outer, other.Inner},
		"swapped": {good.Inner, good.Outer}, "twice the same": {good.Outer, good.Outer},
	} {
		if _, err := launcher.CheckUserNamespaces(dup(t, files), user.UID); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := launcher.CheckUserNamespaces(dup(t, []*os.File{good.Outer, good.Inner}), user.UID+1); err == nil {
		t.Error("accepted another user's")
	}
	if _, err := launcher.CheckUserNamespaces(dup(t, []*os.File{good.Outer, good.Inner}), user.UID); err != nil {
		t.Errorf("refused good ones: %v", err)
	}
}

// A user may be in more groups than a map has lines.
func TestManyGroups(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	many := user
	for g := range 1000 {
		many.Groups = append(many.Groups, 1_000_000_000+g)
	}
	users, err := launcher.NewUserNamespaces(t.Context(), selfExe, many)
	if err != nil {
		t.Fatal(err)
	}
	users.Close()
}

func dup(t *testing.T, files []*os.File) []*os.File {
	t.Helper()
	var out []*os.File
	for _, f := range files {
		fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, os.NewFile(uintptr(fd), "copy"))
	}
	return out
}
