package launcher_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/berth-hpc/berth/launcher"
	"golang.org/x/sys/unix"
)

// folders makes folders that users may name as an image, below one that it
// returns.
const folders = `set -e
mkdir -p own/bin own/etc own/usr/lib own/mnt own/closed
cp "$BUSYBOX" own/bin/busybox
for a in sh cat ls touch mkdir pwd rm; do ln -s busybox own/bin/$a; done
echo lib >own/usr/lib/file
printf 'A=plain\nB="in quotes"\n# no=comment\n' >own/etc/environment
echo secret >own/closed/file; chmod 700 own/closed; echo secret >own/secret; chmod 600 own/secret
cp -a own theirs; cp -a own locked
ln -s own link
mkdir noshell; cp "$BUSYBOX" noshell/run
mkdir -p layout/blobs dir; echo '{}' | tee layout/oci-layout layout/index.json dir/manifest.json >dir/x; echo "Directory Transport Version: 1.1" >dir/version
tar cf archive.tar own/etc
chmod 700 locked
cp -a own enroot; printf '# a label\n\nmkdir -p "/usr/lib" 2> /dev/null\ncd "/usr/lib" && unset OLDPWD || exit 1\n' >enroot/etc/rc
cp -a own user`

// makeFolders runs that and gives own and link to the user.
func makeFolders(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	open(t, dir, filepath.Dir(dir))
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Skip("needs busybox (package busybox-static)")
	}
	cmd := exec.Command("sh", "-c", folders+"\nchown -R 62001:62001 own link enroot")
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "BUSYBOX="+busybox)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return dir
}

// A folder of the user's, given by path, is the root file system: bound as the
// user, never copied, never by root, never changed.
func TestFoldersByPath(t *testing.T) {
	if !launcher.PrivateMounts(t) {
		return
	}
	b := newBed(t)
	users := b.users()
	dir := makeFolders(t)
	if err := unix.Mount("mnt", filepath.Join(dir, "own/mnt"), "tmpfs", 0, "mode=0755"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(filepath.Join(dir, "own/mnt"), unix.MNT_DETACH) })
	if err := os.WriteFile(filepath.Join(dir, "own/mnt/file"), []byte("mounted"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name, path string
		writable   bool
		script     string
		want       string // of the output, or of the error
	}{
		{"own", "./own", false, "cat /usr/lib/file; touch /usr/lib/x; touch /x", "lib\ntouch: /usr/lib/x: Read-only file system\ntouch: /x: Read-only file system"},
		{"what is mounted in it", "own", false, "cat /mnt/file; touch /mnt/x", "mountedtouch: /mnt/x: Read-only file system"},
		{"absolute", dir + "/own", false, "cat /usr/lib/file", "lib"},
		{"symbolic link", "./link", false, "cat /usr/lib/file", "lib"},
		{"another's", "theirs", false, "cat /usr/lib/file", "lib"},
		{"another's secrets stay closed", "theirs", false, "cat /secret; ls /closed; cat /usr/lib/file", "Permission denied"},
		{"one's own secrets do not", "own", false, "cat /secret", "secret"},
		{"environment", "./own", false, "echo $A $B", "plain in quotes"},
		{"enroot's working folder", "./enroot", false, "pwd", "/usr/lib"},
		{"writable", "./enroot", true, "echo changed >/usr/lib/file; mkdir /new; rm /bin/touch; cat /usr/lib/file; ls -d /new", "changed\n/new"},
		{"of nobody's", "locked", false, "true", "/locked: permission denied"},
		{"missing", "./nothing", false, "true", "no such file or directory"},
		{"layout", "./layout", false, "true", "a folder of layers, which has to be converted first"},
		{"dir", "./dir", false, "true", "a folder of layers, which has to be converted first"},
		{"archive", "./archive.tar", false, "true", "an archive, which has to be converted first"},
		{"device", "/dev/null", false, "true", "neither a file nor a folder"},
		{"writable over what is mounted", "own", true, "true", "other file systems are mounted in that folder"},
		{"another's cannot be changed", "theirs", true, "touch /x /usr/lib/x; cat /usr/lib/file", "touch: /usr/lib/x: Permission denied\nlib"},
		{"the node's own root, writable", "/", true, "true", "other file systems are mounted in that folder"},
		{"the node's own root", "/", false, "cat " + dir + "/own/usr/lib/file", "lib"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cr := b.creation(users, false)
			cr.Stage.Image = nil
			cr.Request.Image = launcher.Root{Kind: launcher.RootFile, Path: tc.path}
			cr.Request.Job.Dir, cr.Request.Writable = dir, tc.writable
			got := ""
			if c, err := cr.Create(t.Context()); err != nil {
				got = err.Error()
			} else {
				got = b.run(users, c, false, tc.script)
				c.Close()
			}
			if !strings.Contains(got, tc.want) {
				t.Errorf("%s\nwant %s", got, tc.want)
			}
		})
	}
	if raw, err := os.ReadFile(filepath.Join(dir, "enroot/usr/lib/file")); err != nil || string(raw) != "lib\n" {
		t.Errorf("the folder was changed: %q, %v", raw, err)
	}
	if _, err := os.Lstat(filepath.Join(dir, "own/proc")); err == nil {
		t.Error("a mount point was made in the folder")
	}
}
