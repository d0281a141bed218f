package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/berth-hpc/berth/launcher"
)

// benchUser is nobody's account.
var benchUser = launcher.User{UID: 62001, GID: 62001, Name: "bench", Home: "/tmp"}

const imageName = "bench.v1"

// roots are the root file systems that are compared: one image as Berth gives
// it to tasks, as a plain mount of its squashfs, unpacked on ext4, and served by
// squashfuse.
type roots struct {
	dir    string // work folder, open to every user
	image  *os.File
	mounts *launcher.Mounts
	users  *launcher.UserNamespaces
	ext4   string // file with the ext4 file system
	tree   string // where it is mounted
	fuse   string // where squashfuse serves the image
	boxes  map[string]*launcher.Container

	missing map[string]string // roots that there are not, and why
}

// The names of the variants.
const (
	inBerth    = "berth"
	inSquashfs = "bare squashfs"
	inExt4     = "ext4"
	inFUSE     = "squashfuse_ll"
)

// program is the path of one of Berth's. They are in a folder of their own, as on
// a node: libcontainer copies a program into memory, for every container, when a
// mount that it may not uncover is somewhere below the program's folder.
func (r *roots) program(name string) string { return filepath.Join(r.dir, "libexec", name) }

// names are those of the roots that there are.
func (r *roots) names() []string {
	names := []string{inBerth, inSquashfs, inExt4}
	if r.missing[inFUSE] == "" {
		names = append(names, inFUSE)
	}
	return names
}

// newRoots needs root and a mount namespace of its own, with which all that
// it mounts goes away. dir holds berth-create and berth-join.
func newRoots(ctx context.Context, dir, image string) (*roots, error) {
	f, err := os.Open(image)
	if err != nil {
		return nil, err
	}
	r := &roots{
		dir: dir, image: f, ext4: filepath.Join(dir, "ext4.img"), tree: filepath.Join(dir, "tree"), fuse: filepath.Join(dir, "fuse"),
		boxes: map[string]*launcher.Container{}, missing: map[string]string{},
	}
	if _, err := exec.LookPath(inFUSE); err != nil {
		r.missing[inFUSE] = "not installed (tools/deps bench)"
	}
	if err := r.unpack(ctx, image); err != nil {
		return nil, err
	}
	if r.mounts, err = launcher.OpenMounts(ctx, filepath.Join(dir, "run")); err != nil {
		return nil, err
	}
	if r.users, err = launcher.NewUserNamespaces(ctx, "/proc/self/exe", benchUser); err != nil {
		return nil, err
	}
	return r, nil
}

// unpack writes the image's tree to an ext4 file system of its own, so that
// its caches can be emptied without those of the machine.
func (r *roots) unpack(ctx context.Context, image string) error {
	if err := os.MkdirAll(r.tree, 0o755); err != nil {
		return err
	}
	return command(ctx, "sh", "-ec", `
		truncate -s 4G "$1"
		mkfs.ext4 -q -F "$1"
		mount -o loop "$1" "$2"
		unsquashfs -q -n -f -d "$2" "$3"
		umount "$2"`, "sh", r.ext4, r.tree, image)
}

func command(ctx context.Context, name string, args ...string) error {
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, strings.TrimSpace(string(out)))
	}
	return nil
}

// open mounts what is not mounted and makes the containers.
func (r *roots) open(ctx context.Context) error {
	if err := r.mounts.MountImage(ctx, imageName, r.image); err != nil {
		return err
	}
	if err := command(ctx, "mount", "-o", "loop,ro", r.ext4, r.tree); err != nil {
		return err
	}
	if err := r.serve(ctx); err != nil {
		return err
	}
	for _, name := range r.names() {
		box, err := r.create(ctx, name)
		if err != nil {
			return fmt.Errorf("make the container on %s: %w", name, err)
		}
		r.boxes[name] = box
	}
	return nil
}

// serve has squashfuse serve the image to everybody. It goes to the background,
// and ends when it is unmounted.
func (r *roots) serve(ctx context.Context) error {
	if r.missing[inFUSE] != "" {
		return nil
	}
	err := command(ctx, "sh", "-ec", `
		mkdir -p "$1"
		squashfuse_ll -o allow_other "$2" "$1" >"$1.log" 2>&1 || { cat "$1.log"; exit 1; }`, "sh", r.fuse, r.image.Name())
	if err != nil {
		r.missing[inFUSE] = err.Error()
	}
	return nil
}

// close undoes open.
func (r *roots) close(ctx context.Context) error {
	for _, box := range r.boxes {
		box.Close()
	}
	clear(r.boxes)
	if err := command(ctx, "umount", r.tree); err != nil {
		return err
	}
	if r.missing[inFUSE] == "" {
		if err := command(ctx, "umount", r.fuse); err != nil {
			return err
		}
	}
	return r.mounts.UnmountImage(ctx, imageName)
}

// forget is close, with the cached blocks of both files given up; the next
// open then starts with file systems of which nothing is in memory.
func (r *roots) forget(ctx context.Context) error {
	if err := r.close(ctx); err != nil {
		return err
	}
	for _, path := range []string{r.image.Name(), r.ext4} {
		if err := dropCache(path); err != nil {
			return err
		}
	}
	return nil
}

func dropCache(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		return err
	}
	return unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
}

// create makes one container, with Berth's own program or with runBare.
func (r *roots) create(ctx context.Context, name string) (*launcher.Container, error) {
	mount, err := r.clone(name)
	if err != nil {
		return nil, err
	}
	defer mount.Close()
	if _, err := launcher.IDMap(mount, r.users.Outer); err != nil {
		return nil, err
	}
	exe := "/proc/self/exe"
	if name == inBerth {
		exe = r.program("berth-create")
	}
	c := &launcher.Creation{
		Exe: exe, Users: r.users, Stage: &launcher.Stage{Image: mount, Dir: filepath.Join(r.dir, "run")},
		Request: &launcher.Request{User: benchUser, Job: launcher.Job{Dir: "/"}},
	}
	return c.Create(ctx)
}

// clone returns a detached copy of the tree's mount, with the same flags
// for all file systems.
func (r *roots) clone(name string) (*os.File, error) {
	tree, here := map[string]string{inExt4: r.tree, inFUSE: r.fuse}[name]
	if !here {
		return r.mounts.CloneImage(imageName)
	}
	fd, err := unix.OpenTree(unix.AT_FDCWD, tree, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("open_tree", err)
	}
	f := os.NewFile(uintptr(fd), tree)
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		f.Close()
		return nil, os.NewSyscallError("mount_setattr", err)
	}
	return f, nil
}

// run runs a command as a task of a container, joined by Berth's program.
func (r *roots) run(ctx context.Context, v Variant) Sample {
	ctx, cancel := context.WithTimeout(ctx, oneRun)
	defer cancel()
	return execute(r.task(ctx, r.boxes[v.Name], v.Args...))
}

func (r *roots) task(ctx context.Context, box *launcher.Container, args ...string) *exec.Cmd {
	args = append([]string{"--user=3", "--mnt=4", "--result=5", "--user2=6", "--"}, args...)
	cmd := exec.CommandContext(ctx, r.program("berth-join"), args...)
	cmd.ExtraFiles = []*os.File{r.users.Outer, box.Mount, box.Result, r.users.Inner}
	// One thread: how many OpenBLAS starts and where they run is only noise here.
	cmd.Env = []string{"PATH=/usr/local/bin:/usr/bin:/bin", "HOME=/tmp", "OPENBLAS_NUM_THREADS=1"}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(benchUser.UID), Gid: uint32(benchUser.GID)}}
	return cmd
}
