package launcher_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/berth-hpc/berth/launcher"
)

// An image's volumes can be written to in a read-only container, show what the
// image has there, and hide nothing that is mounted.
func TestVolumes(t *testing.T) {
	bothWays(t, func(t *testing.T, b *bed, idmap bool) {
		users := b.users()
		dir := hostFolder(t, "mine")
		text, err := json.Marshal(map[string]any{"config": map[string]any{"Volumes": []string{
			"/usr/share", "/srv/new/deep", "/tmp/berth-volume", "/data", "../../escape", "/", "", "/usr/lib/file", "/var/run/v", "/usr/share/zoneinfo",
		}}})
		if err != nil {
			t.Fatal(err)
		}
		create := func(change func(*launcher.Creation)) *launcher.Container {
			cr := b.creation(users, idmap)
			cr.Config = file(t, string(text))
			cr.Request.Site.Volumes = true
			cr.Request.Mounts = []string{dir + ":/data:ro", dir + "/mine:/srv/new/deep/below/f"}
			change(cr)
			return b.create(cr)
		}
		c := create(func(*launcher.Creation) {})
		for script, want := range map[string]string{
			"cat /usr/share/zoneinfo/UTC; echo x >/usr/share/new; cat /usr/share/new": "UTC\nx",
			"echo x >/srv/new/deep/f; ls /srv/new/deep":                               "below\nf",
			"cat /srv/new/deep/below/f":                                               "mine",
			"touch /data/x":                                                           "touch: /data/x: Read-only file system\n[exit status 1]",
			"cat /data/mine; cat /usr/lib/file":                                       "mine\nlib",
			"touch /usr/lib/x":                                                        "touch: /usr/lib/x: Read-only file system\n[exit status 1]",
			"touch /run/v/x /etc/x; ls /run/v":                                        "x",
			"ls -d /tmp/berth-volume":                                                 "ls: /tmp/berth-volume: No such file or directory\n[exit status 1]",
		} {
			if got := b.run(users, c, false, script); got != want {
				t.Errorf("%s:\n%s\nwant\n%s", script, got, want)
			}
		}
		if len(c.Notes) != 1 || c.Notes[0] != "the image's volume /usr/lib/file is no folder" {
			t.Errorf("notes: %q", c.Notes)
		}
		if _, err := os.Stat("/tmp/berth-volume"); err == nil {
			t.Error("a volume was made on the node")
			_ = os.Remove("/tmp/berth-volume")
		}
		if _, err := os.Stat(filepath.Join(dir, "x")); err == nil {
			t.Error("the node's folder was written to")
		}
		off := create(func(cr *launcher.Creation) { cr.Request.Site.Volumes = false })
		if got := b.run(users, off, false, "touch /usr/share/x"); got != "touch: /usr/share/x: Read-only file system\n[exit status 1]" {
			t.Errorf("switched off: %s", got)
		}
		fresh := create(func(*launcher.Creation) {})
		if got := b.run(users, fresh, false, "ls /usr/share"); got != "zoneinfo" {
			t.Errorf("the next container sees %s", got)
		}
		if idmap {
			writable := create(func(cr *launcher.Creation) { cr.Request.Writable = true })
			if got := b.run(users, writable, false, "touch /srv/new/deep/x && ls /srv/new/deep"); got != "below\nx" {
				t.Errorf("writable: %s", got)
			}
		}
	})
}
