package launcher_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/berth-hpc/berth/launcher"
)

// What a task may try to get at files of the host that it was not shown, as
// the user and as root in appearance. Each script prints "kept out".
var hostFileAttacks = []string{
	// other processes' view of the node
	"ls /proc/1/root/ /proc/1/cwd/ 2>/dev/null || echo kept out",
	"ls /proc/1/fd/ 2>/dev/null | grep . || echo kept out",
	"for p in /proc/[0-9]*; do cat $p/root/HOST/hostsecret; done 2>/dev/null | grep hostsecret || echo kept out",
	"for p in /proc/[0-9]*; do cat $p/cwd/hostsecret $p/root/etc/shadow; done 2>/dev/null | grep -e hostsecret -e root: || echo kept out",
	// its own root, by every name
	"cat /proc/self/root/HOST/hostsecret /proc/self/root/../HOST/hostsecret /../../HOST/hostsecret /proc/thread-self/cwd/../HOST/hostsecret 2>/dev/null || echo kept out",
	"cat /dev/fd/../../../HOST/hostsecret 2>/dev/null || echo kept out",
	// descriptors that the builder might have left
	"for f in /proc/self/fd/*; do cat $f/HOST/hostsecret $f/hostsecret; done 2>/dev/null | grep hostsecret || echo kept out",
	// the kernel's memory and its switches
	"cat /proc/kcore 2>/dev/null | head -c 1 | grep . || echo kept out",
	"{ echo b >/proc/sysrq-trigger; } 2>/dev/null || echo kept out",
	"{ echo /x >/proc/sys/kernel/core_pattern; } 2>/dev/null || echo kept out",
	"{ echo /x >/sys/kernel/uevent_helper; } 2>/dev/null || echo kept out",
	// mounts of its own: none of them is a disk, or another's proc
	"mount -t ext4 /dev/vda /mnt 2>/dev/null || mount -o bind /proc/1/root /mnt 2>/dev/null || echo kept out",
	"umount /proc /sys /dev /tmp 2>/dev/null; cat /proc/HOST/hostsecret /HOST/hostsecret 2>/dev/null || echo kept out",
}

func TestHostFilesAreOutOfReach(t *testing.T) {
	bothWays(t, func(t *testing.T, b *bed, idmap bool) {
		dir := hostFolder(t, "hostsecret", "shown/f")
		users := b.users()
		for _, remap := range []bool{false, true} {
			for _, script := range hostFileAttacks {
				cr := b.creation(users, idmap)
				cr.Request.RemapRoot = remap
				cr.Request.Mounts = []string{dir + "/shown:/shown"}
				c := b.create(cr)
				script = strings.ReplaceAll(script, "/HOST", dir)
				if got := b.run(users, c, remap, script); got != "kept out" {
					t.Errorf("as root %v: %s:\n%s", remap, script, got)
				}
				c.Close()
			}
		}
	})
}

// Links of the image, and of a folder that is shown, lead no mount point out
// of the container.
func TestLinksLeadNoMountOut(t *testing.T) {
	bothWays(t, func(t *testing.T, b *bed, idmap bool) {
		dir := hostFolder(t, "outside/", "mine/f", "shown/x")
		if err := os.Chmod(dir+"/outside", 0o777); err != nil {
			t.Fatal(err)
		}
		for link, to := range map[string]string{
			"abs": dir + "/outside", "up": "../../../../../../../.." + dir + "/outside", "proc": "/proc/self/root" + dir + "/outside", "root": "/proc/1/root",
		} {
			if err := os.Symlink(to, filepath.Join(dir, "shown", link)); err != nil {
				t.Fatal(err)
			}
		}
		users := b.users()
		for _, link := range []string{"abs", "up", "proc", "root"} {
			got := b.try(users, idmap, "ls /shown", func(r *launcher.Request) {
				r.Mounts = []string{dir + "/shown:/shown", fmt.Sprintf("%s/mine:/shown/%s/point", dir, link)}
			})
			if got != "abs\nproc\nroot\nup\nx" && !strings.Contains(got, "mount target /shown/"+link+"/point: ") { // inside of the container, or refused
				t.Errorf("%s: %s", link, got)
			}
		}
		left, err := os.ReadDir(dir + "/outside")
		if err != nil || len(left) != 0 {
			t.Errorf("made on the node: %v, %v", left, err)
		}
	})
}

// A link that is moved while its path is checked and mounted shows nothing
// that a rule denies.
func TestMovedLinks(t *testing.T) {
	if !launcher.PrivateMounts(t) {
		return
	}
	b := newBed(t)
	dir := hostFolder(t, "allowed/f", "denied/f")
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() { // as a user would, in a folder of theirs
		defer close(stopped)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			next := filepath.Join(dir, "next")
			_ = os.Symlink([]string{"allowed", "denied"}[i%2], next)
			_ = os.Rename(next, filepath.Join(dir, "link"))
		}
	}()
	defer func() { close(stop); <-stopped }()
	users := b.users()
	seen := map[string]int{}
	for range 60 {
		got := b.try(users, false, "cat /x/f", func(r *launcher.Request) {
			r.Site.Rules = launcher.MountRules{Deny: []string{dir + "/denied"}}
			r.Mounts = []string{dir + "/link:/x"}
		})
		if got == "denied/f" {
			t.Fatal("what is denied was shown")
		}
		seen[got]++
	}
	if len(seen) < 2 {
		t.Logf("the link was never seen moved: %v", seen)
	}
}
