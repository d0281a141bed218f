package launcher_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/berth-hpc/berth/imagefile"
	"github.com/berth-hpc/berth/launcher"
	"github.com/berth-hpc/berth/launcher/inside"
	_ "github.com/berth-hpc/berth/launcher/nsenter"
	"github.com/opencontainers/runc/libcontainer"
	_ "github.com/opencontainers/runc/libcontainer/nsenter"
	"github.com/sylabs/sif/v2/pkg/sif"
	"golang.org/x/sys/unix"
)

// TestMain lets the test binary stand in for berth-create, of which it links
// every part.
func TestMain(m *testing.M) {
	mode := ""
	if len(os.Args) > 1 {
		mode = os.Args[1]
	}
	switch {
	case mode == "init":
		libcontainer.Init()
	case mode == "inside" && len(os.Args) > 3 && os.Args[3] == "builder":
		hostileBuilder(os.NewFile(3, "channel"))
	case mode == "inside" && len(os.Args) > 3:
		attackStage(os.NewFile(3, "channel"))
	case mode == "inside":
		if inside.Run(os.NewFile(3, "channel")) != nil {
			os.Exit(1)
		}
	case mode == "running":
		tellRunning()
	default:
		os.Exit(m.Run())
	}
}

// selfExe runs this test binary whatever folder it lies in.
const selfExe = "/proc/self/exe"

// user is nobody's account on the host.
var user = launcher.User{UID: 62001, GID: 62001, Groups: []int{62100, 62101}, Name: "alice", Home: "/home/alice"}

// A bed is an image mounted for containers, with its tools.
type bed struct {
	t      *testing.T
	mounts *launcher.Mounts
	image  *os.File
	join   string
	runDir string
}

const imageName = "test.v1"

// newBed makes the image and the node's mounts in the test's own namespace.
func newBed(t *testing.T) *bed {
	t.Helper()
	b := &bed{t: t, runDir: filepath.Join(t.TempDir(), "berth"), join: buildJoin(t)}
	b.image = busyboxImage(t)
	var err error
	if b.mounts, err = launcher.OpenMounts(t.Context(), b.runDir); err != nil {
		t.Fatal(err)
	}
	if err := b.mounts.MountImage(t.Context(), imageName, b.image); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.close)
	return b
}

// close checks that nothing of a container keeps the image alive.
func (b *bed) close() {
	if err := b.mounts.UnmountImage(context.Background(), imageName); err != nil {
		b.t.Error(err)
	}
	launcher.WaitLoops(b.t, b.image, 0)
	b.mounts.Close()
	if err := unix.Unmount(b.runDir, unix.MNT_DETACH); err != nil {
		b.t.Error(err)
	}
}

func buildJoin(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	out, err := exec.Command("make", "-C", "join", "BUILD="+dir, "SANITIZE=1").CombinedOutput()
	if err != nil {
		t.Fatalf("build berth-join: %v\n%s", err, out)
	}
	open(t, dir, filepath.Dir(dir))
	return filepath.Join(dir, "libexec/berth/berth-join")
}

// open lets the test's user pass through the test's folders.
func open(t *testing.T, dirs ...string) {
	t.Helper()
	for _, d := range dirs {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

// busyboxImage is what the store would never publish: beside busybox it has a
// setuid program, a device node and a file that only root may read.
func busyboxImage(t *testing.T) *os.File {
	t.Helper()
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Skip("needs busybox (package busybox-static)")
	}
	dir := t.TempDir()
	script := `set -e
mkdir -p tree/bin tree/usr/lib tree/usr/share/zoneinfo tree/etc tree/root tree/proc tree/var
cp ` + busybox + ` tree/bin/busybox
for a in sh cat id ls touch mkdir rm rmdir stat env pwd mount umount grep chmod head; do ln -s busybox tree/bin/$a; done
cp tree/bin/busybox tree/bin/setuid; chmod 4755 tree/bin/setuid
mknod tree/zero c 1 5; chmod 666 tree/zero
echo secret >tree/secret; chmod 600 tree/secret
echo 'root:x:0:0::/root:/bin/sh' >tree/etc/passwd
echo lib >tree/usr/lib/file
echo UTC >tree/usr/share/zoneinfo/UTC; ln -s /usr/share/zoneinfo/UTC tree/etc/localtime; echo UTC >tree/etc/zone
ln -s /run tree/var/run; ln -s /etc tree/escape
touch -d @1000000000 tree/usr/lib
mksquashfs tree image.sqfs -quiet -no-progress -all-root`
	cmd := exec.Command("sh", "-c", script)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	f, err := os.Open(filepath.Join(dir, "image.sqfs"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func (b *bed) users() *launcher.UserNamespaces {
	b.t.Helper()
	users, err := launcher.NewUserNamespaces(b.t.Context(), selfExe, user)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(users.Close)
	return users
}

// creation is a container request; idmap false is what kernels before 6.2 do.
func (b *bed) creation(users *launcher.UserNamespaces, idmap bool) *launcher.Creation {
	b.t.Helper()
	image, err := b.mounts.CloneImage(imageName)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { image.Close() })
	if idmap {
		ok, err := launcher.IDMap(image, users.Outer)
		if err != nil {
			b.t.Fatal(err)
		}
		if !ok {
			b.t.Skip("this kernel can't idmap squashfs (needs 6.2)")
		}
	}
	return &launcher.Creation{
		Exe: selfExe, Users: users,
		Stage:   &launcher.Stage{Image: image, Dir: b.runDir},
		Request: &launcher.Request{User: user, Job: launcher.Job{Dir: "/"}},
	}
}

func (b *bed) create(c *launcher.Creation) *launcher.Container {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), 30*time.Second)
	defer cancel()
	container, err := c.Create(ctx)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(container.Close)
	return container
}

// run runs a shell command as a task of the container. remap leaves it in N1.
func (b *bed) run(users *launcher.UserNamespaces, c *launcher.Container, remap bool, script string) string {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), 30*time.Second)
	defer cancel()
	return output(b.command(ctx, users, c, remap, script))
}

// runWith runs a command with this environment of the host's, of which the user
// keeps some.
func (b *bed) runWith(users *launcher.UserNamespaces, c *launcher.Container, env, keep []string, command ...string) string {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), 30*time.Second)
	defer cancel()
	cmd := b.command(ctx, users, c, false, "")
	at := slices.Index(cmd.Args, "--")
	cmd.Args, cmd.Env = cmd.Args[:at], env
	for _, name := range keep {
		cmd.Args = append(cmd.Args, "--keep-env="+name)
	}
	cmd.Args = append(append(cmd.Args, "--"), command...)
	return output(cmd)
}

func output(cmd *exec.Cmd) string {
	out, err := cmd.CombinedOutput()
	if err != nil {
		out = fmt.Appendf(out, "[%v]", err)
	}
	return strings.TrimSpace(string(out))
}

// command is what run runs.
func (b *bed) command(ctx context.Context, users *launcher.UserNamespaces, c *launcher.Container, remap bool, script string) *exec.Cmd {
	args := []string{"--user=3", "--mnt=4", "--result=5"}
	files := []*os.File{users.Outer, c.Mount, c.Result}
	if !remap {
		args, files = append(args, "--user2=6"), append(files, users.Inner)
	}
	cmd := exec.CommandContext(ctx, b.join, append(args, "--", "/bin/sh", "-c", script)...)
	cmd.ExtraFiles = files
	cmd.Env = []string{"HOSTVAR=1", "PATH=/bin", "LC_ALL=xx"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{
		Uid: uint32(user.UID), Gid: uint32(user.GID), Groups: []uint32{62001, 62100, 62101},
	}}
	return cmd
}

// bothWays runs a test with and without idmapped image mounts.
func bothWays(t *testing.T, f func(t *testing.T, b *bed, idmap bool)) {
	t.Helper()
	if !launcher.PrivateMounts(t) {
		return
	}
	for _, idmap := range []bool{true, false} {
		t.Run(fmt.Sprintf("idmap=%v", idmap), func(t *testing.T) { f(t, newBed(t), idmap) })
	}
}

func TestTaskIsTheUser(t *testing.T) {
	bothWays(t, func(t *testing.T, b *bed, idmap bool) {
		users := b.users()
		c := b.create(b.creation(users, idmap))
		owner := map[bool]string{true: "62001", false: "65534"}[idmap]
		for script, want := range map[string]string{
			"id":                          "uid=62001(alice) gid=62001(alice) groups=62001(alice),62100(group62100),62101(group62101)",
			"stat -c %u /bin /usr/lib":    owner + "\n" + owner,
			"grep CapEff /proc/$$/status": "CapEff:\t0000000000000000",
			"echo $HOSTVAR$LC_ALL":        "1",
			"pwd":                         "/",
			"cat /usr/lib/file":           "lib",
			"touch /usr/lib/x":            "touch: /usr/lib/x: Read-only file system\n[exit status 1]",
			"touch /tmp/x.$$ && rm /tmp/x.$$ && echo ok":                             "ok",
			"test -c /dev/null && test -d /proc/1 && test -d /sys/kernel && echo ok": "ok",
		} {
			if got := b.run(users, c, false, script); got != want {
				t.Errorf("%s:\n%s\nwant\n%s", script, got, want)
			}
		}
	})
}

// writable is a creation with a root file system that can be changed.
func (b *bed) writable(users *launcher.UserNamespaces, idmap bool) *launcher.Creation {
	b.t.Helper()
	cr := b.creation(users, idmap)
	cr.Request.Writable = true
	if !idmap { // what the step's helper does on such kernels
		everyonesFUSE(b.t)
		cr.Stage.Image = nil
		cr.Request.Image = launcher.Root{Kind: launcher.RootFUSE}
		cr.Squashfs = b.image
	}
	return cr
}

func TestWritable(t *testing.T) {
	bothWays(t, func(t *testing.T, b *bed, idmap bool) {
		users := b.users()
		c := b.create(b.writable(users, idmap))
		for _, step := range []struct{ script, want string }{
			{"echo more >>/usr/lib/file && cat /usr/lib/file", "lib\nmore"},
			{"mkdir /usr/new && rm -r /usr/lib && mkdir /usr/lib && ls /usr/lib", ""},
			{"stat -c %u /usr/new", "62001"},
		} {
			if got := b.run(users, c, false, step.script); got != step.want {
				t.Errorf("%s:\n%s\nwant\n%s", step.script, got, step.want)
			}
		}
		other := b.create(b.creation(users, idmap))
		if got := b.run(users, other, false, "cat /usr/lib/file"); got != "lib" {
			t.Errorf("another container of the same image sees %q", got)
		}
	})
}

// everyonesFUSE gives /dev/fuse the mode that udev gives it, in the test's own
// mount namespace: build machines without udev leave it to root.
func everyonesFUSE(t *testing.T) {
	t.Helper()
	node := filepath.Join(t.TempDir(), "fuse")
	if err := unix.Mknod(node, unix.S_IFCHR, int(unix.Mkdev(10, 229))); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(node, 0o666); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(node, "/dev/fuse", "", unix.MS_BIND, ""); err != nil {
		t.Skip("no /dev/fuse: ", err)
	}
	t.Cleanup(func() { _ = unix.Unmount("/dev/fuse", unix.MNT_DETACH) })
}

func TestMountPoints(t *testing.T) {
	bothWays(t, func(t *testing.T, b *bed, idmap bool) {
		users := b.users()
		dir := t.TempDir()
		open(t, dir, filepath.Dir(dir))
		if err := os.WriteFile(filepath.Join(dir, "data"), []byte("host"), 0o644); err != nil {
			t.Fatal(err)
		}
		cr := b.creation(users, idmap)
		cr.Request.Mounts = []string{
			dir + ":/usr/local/deep/data:ro", dir + "/data:/root/f", dir + ":/var/run/x", dir + ":/escape/y",
		}
		c := b.create(cr)
		for script, want := range map[string]string{
			"cat /usr/local/deep/data/data": "host",
			"touch /usr/local/deep/data/n":  "touch: /usr/local/deep/data/n: Read-only file system\n[exit status 1]",
			"cat /root/f":                   "host",
			"cat /run/x/data /etc/y/data":   "hosthost",
			"cat /usr/lib/file":             "lib", // the folder beside the new mount point is still the image's
		} {
			if got := b.run(users, c, false, script); got != want {
				t.Errorf("%s:\n%s\nwant\n%s", script, got, want)
			}
		}
		if _, err := os.Stat("/etc/y"); err == nil {
			t.Error("a link of the image led a mount point onto the host")
		}
	})
}

// An image whose WorkingDir is in none of its layers starts there all the same.
func TestWorkdir(t *testing.T) {
	if !launcher.PrivateMounts(t) {
		return
	}
	b := newBed(t)
	users := b.users()
	for config, want := range map[string]string{
		`{}`:                                       "/",
		`{"config":{"WorkingDir":"/usr/lib"}}`:     "/usr/lib",
		`{"config":{"WorkingDir":"/data/new"}}`:    "/data/new",
		`{"config":{"WorkingDir":"/var/run/new"}}`: "/run/new", // /var/run is a link to /run
	} {
		cr := b.creation(users, false)
		cr.Config = file(t, config)
		if got := b.run(users, b.create(cr), false, "pwd -P"); got != want {
			t.Errorf("config %s: started in %q, want %q", config, got, want)
		}
	}
}

// An unpacked image is a folder that the user may write to; containers do not.
func TestFolder(t *testing.T) {
	if !launcher.PrivateMounts(t) {
		return
	}
	b := newBed(t)
	users := b.users()
	dir := t.TempDir()
	open(t, dir, filepath.Dir(dir))
	tree := filepath.Join(dir, "tree")
	if out, err := exec.Command("unsquashfs", "-no-progress", "-quiet", "-dest", tree, b.image.Name()).CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	if out, err := exec.Command("chown", "-R", fmt.Sprintf("%d:%d", user.UID, user.GID), tree).CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	for writable, want := range map[bool]string{
		false: "/bin/sh: can't create /usr/lib/file: Read-only file system\n/bin/sh: can't create /bin/x: Read-only file system\nlib",
		true:  "changed",
	} {
		cr := b.creation(users, false)
		cr.Stage.Image = nil
		cr.Request.Image = launcher.Root{Kind: launcher.RootFolder, Path: tree}
		cr.Request.Writable = writable
		script := "echo changed >/usr/lib/file; echo x >/bin/x; cat /usr/lib/file"
		if got := b.run(users, b.create(cr), false, script); got != want {
			t.Errorf("writable=%v: %q, want %q", writable, got, want)
		}
	}
	if text, err := os.ReadFile(filepath.Join(tree, "usr/lib/file")); err != nil || string(text) != "lib\n" {
		t.Errorf("the image's folder was changed: %q, %v", text, err)
	}
}

// A file of the user's is opened by the user and served by FUSE.
func TestFiles(t *testing.T) {
	if !launcher.PrivateMounts(t) {
		return
	}
	b := newBed(t)
	users := b.users()
	everyonesFUSE(t)
	dir := t.TempDir()
	open(t, dir, filepath.Dir(dir))
	sqsh := filepath.Join(dir, "x.sqsh")
	if out, err := exec.Command("cp", b.image.Name(), sqsh).CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	secret := filepath.Join(dir, "secret.sqsh")
	if out, err := exec.Command("cp", "-p", "--no-preserve=mode", sqsh, secret).CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	writeSIF(t, filepath.Join(dir, "x.sif"), sqsh)
	config := filepath.Join(dir, "config.sqsh")
	appendConfig(t, sqsh, config, imagefile.Config{Env: []string{"WHENCE=behind"}, WorkingDir: "/usr/lib"})
	if err := os.WriteFile(filepath.Join(dir, "text"), []byte("hello"), 0o644); err != nil {
		t.Fatal(err)
	}
	for path, mode := range map[string]os.FileMode{sqsh: 0o644, config: 0o644, secret: 0o600, filepath.Join(dir, "x.sif"): 0o644} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]string{
		"x.sqsh": "lib", "x.sif": "lib", "secret.sqsh": "permission denied", "none.sqsh": "no such file", "config.sqsh": "lib\nbehind /usr/lib",
		"text": "neither a squashfs nor a SIF",
	} {
		cr := b.creation(users, false)
		cr.Stage.Image = nil
		cr.Request.Image = launcher.Root{Kind: launcher.RootFile, Path: "./" + name}
		cr.Request.Job.Dir = dir
		got := ""
		if c, err := cr.Create(t.Context()); err != nil {
			got = err.Error()
		} else {
			got = b.run(users, c, false, "cat /usr/lib/file; echo $WHENCE $PWD")
			c.Close()
		}
		if !strings.Contains(got, want) {
			t.Errorf("%s: %s\nwant %s", name, got, want)
		}
	}
}

// appendConfig copies a squashfs file, as berth save does, with a config behind it.
func appendConfig(t *testing.T, from, to string, c imagefile.Config) {
	t.Helper()
	raw, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	b := bytes.NewBuffer(raw)
	if err := imagefile.AppendConfig(b, c); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}

// writeSIF makes a SIF file as apptainer does, with its own library.
func writeSIF(t *testing.T, path, squashfs string) {
	t.Helper()
	f, err := os.Open(squashfs)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	text, err := sif.NewDescriptorInput(sif.DataDeffile, strings.NewReader("bootstrap: docker"))
	if err != nil {
		t.Fatal(err)
	}
	part, err := sif.NewDescriptorInput(sif.DataPartition, f, sif.OptPartitionMetadata(sif.FsSquash, sif.PartPrimSys, "amd64"))
	if err != nil {
		t.Fatal(err)
	}
	image, err := sif.CreateContainerAtPath(path, sif.OptCreateWithDescriptors(text, part))
	if err != nil {
		t.Fatal(err)
	}
	if err := image.UnloadContainer(); err != nil {
		t.Fatal(err)
	}
}

// file is an open file with this text.
func file(t *testing.T, text string) *os.File {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// The job's folder is visible, but hides nothing of the image.
func TestJobFolder(t *testing.T) {
	if !launcher.PrivateMounts(t) {
		return
	}
	b := newBed(t)
	users := b.users()
	dir := t.TempDir()
	open(t, dir, filepath.Dir(dir))
	if err := os.WriteFile(filepath.Join(dir, "data"), []byte("host"), 0o644); err != nil {
		t.Fatal(err)
	}
	node := filepath.Join("/srv", filepath.Base(t.TempDir())) // not below /tmp, which is visible anyhow
	if err := os.Mkdir(node, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(node) })
	if err := unix.Mount(dir, node, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(node, unix.MNT_DETACH) })
	for _, tc := range []struct {
		dir  string
		show bool
		want string
	}{
		{node, true, "host\nlib"},
		{node, false, "lib"},
		{"/usr/lib", true, "lib"}, // the node's /usr/lib has no file of this name
	} {
		cr := b.creation(users, false)
		cr.Request.Job.Dir, cr.Request.MountDir = tc.dir, tc.show
		script := "cat " + node + "/data 2>/dev/null && echo; cat /usr/lib/file"
		if got := b.run(users, b.create(cr), false, script); got != tc.want {
			t.Errorf("%+v: %q", tc, got)
		}
	}
}

func TestUserErrors(t *testing.T) {
	if !launcher.PrivateMounts(t) {
		return
	}
	b := newBed(t)
	users := b.users()
	for name, tc := range map[string]struct {
		change func(*launcher.Request)
		want   string
	}{
		"missing source": {func(r *launcher.Request) { r.Mounts = []string{"/no/such:/x"} }, "source path does not exist: /no/such"},
		"escape":         {func(r *launcher.Request) { r.Mounts = []string{"/tmp:../home"} }, "leaves the container"},
		"bad source":     {func(r *launcher.Request) { r.Mounts = []string{"devpts:/x"} }, "the source begins with . or /"},
		"bad flag":       {func(r *launcher.Request) { r.Mounts = []string{"/tmp:/x:zz"} }, `unknown flag "zz"`},
		"on a file":      {func(r *launcher.Request) { r.Mounts = []string{"/tmp:/usr/lib/file"} }, "mounted onto a file"},
		"below a file":   {func(r *launcher.Request) { r.Mounts = []string{"/tmp:/usr/lib/file/x"} }, "a file is in the way"},
		"no folder":      {func(r *launcher.Request) { r.Workdir = "/nowhere" }, "working directory /nowhere"},
		"into proc":      {func(r *launcher.Request) { r.Mounts = []string{"/tmp:/proc/1"} }, "inside /proc"},
	} {
		t.Run(name, func(t *testing.T) {
			cr := b.creation(users, false)
			tc.change(cr.Request)
			c, err := cr.Create(t.Context())
			if err == nil {
				c.Close()
				t.Fatal("no error")
			}
			if !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%v\nwant %q", err, tc.want)
			}
		})
	}
}
