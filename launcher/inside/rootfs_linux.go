package inside

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/berth-hpc/berth/imagefile"
	"github.com/berth-hpc/berth/launcher"
	securejoin "github.com/cyphar/filepath-securejoin"
	"golang.org/x/sys/unix"
)

// A rootfs is the assembled tree of one container: the image below, a layer
// of mount points (and of changes, if writable) above.
type rootfs struct {
	work     string            // tmpfs of this container
	image    string            // the image's tree
	tree     string            // what the container's root shows before anything is mounted in it
	path     string            // the container's root
	changes  string            // folder that keeps changes; "" for none
	scratch  string            // the same, if it goes with the container
	inMemory bool              // changes is in memory
	kept     *kept             // whose changes these are; nil for none
	folder   string            // what image shows, if that is a folder
	points   []point           // what the layer of mount points has
	copies   []string          // files that are copies of the node's in that layer
	notes    []string          // for the user
	sources  []launcher.Source // of what is mounted
	volumes  []volume          // folders of the image that are to be writable
	// appended is the config behind an image file, nil for none.
	appended *imagefile.Config
}

// A point is a mount point, or a link, that the tree lacks.
type point struct {
	rel   string
	isDir bool
	link  string // it is a symbolic link to this
}

// newRootfs covers req.Work with a tmpfs of the user's own. The tmpfs, like
// everything made here, is part of the container's mount namespace and goes
// with it.
func newRootfs(req *launcher.Request) (*rootfs, error) {
	const flags = unix.MS_NOSUID | unix.MS_NODEV
	if err := unix.Mount("tmpfs", req.Work, "tmpfs", flags, "mode=0755"+limits(req.Scratch.Memory)); err != nil {
		return nil, siteError(fmt.Sprintf("mount tmpfs on %s: %v", req.Work, err), "ask the administrator: tmpfs in user namespaces needs Linux 3.9 and no security module that forbids it")
	}
	r := &rootfs{work: req.Work, image: req.Image.Path, path: filepath.Join(req.Work, "rootfs"), changes: req.Changes}
	for _, d := range []string{"points", "scratch", "rootfs", "state"} {
		if err := os.Mkdir(filepath.Join(r.work, d), 0o755); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// limits are a tmpfs's options for so many bytes: as many files as pages. An
// empty file takes about a quarter of one, which nobody counts.
func limits(bytes int64) string {
	const page = 4096
	if bytes == 0 {
		return ",size=0,nr_inodes=0"
	}
	return fmt.Sprintf(",size=%d,nr_inodes=%d", bytes, bytes/page)
}

// addPoints makes what is missing in the image so that every bind has a
// target: in the layer above, as the user, because the image is read-only and
// its folders belong to somebody who may not be mapped here. Symbolic links
// of the image are resolved inside the image; it can't change meanwhile.
func (r *rootfs) addPoints(binds []bind) error {
	for i := range binds {
		rel, err := r.target(&binds[i])
		if err != nil {
			return fmt.Errorf("resolve mount target %s: %w", binds[i].target, err)
		}
		if err := r.addPoint(rel, binds[i].isDir); err != nil {
			return userError(fmt.Sprintf("mount target %s: %v", binds[i].target, err),
				"choose another target: the image has something else there")
		}
		binds[i].target = "/" + rel
	}
	return nil
}

// note remembers what is at path, as seen at the place where it has been opened,
// "" where it does not exist, for whoever wants to use the container again.
func (r *rootfs) note(path, seen string) {
	if strings.HasPrefix(path, r.work+"/") {
		return // made here
	}
	s := launcher.Source{Path: path}
	var st unix.Stat_t
	if seen != "" && unix.Stat(seen, &st) == nil {
		s.Dev, s.Ino = st.Dev, st.Ino
	}
	r.sources = append(r.sources, s)
}

// keepTimes gives the folders of the layer of mount points the times that they
// have in the tree: what is changed in them later begins as their copy.
func (r *rootfs) keepTimes() error {
	seen := map[string]bool{}
	all := slices.Clone(r.copies)
	for _, p := range r.points {
		all = append(all, p.rel)
	}
	for _, rel := range all {
		for dir := filepath.Dir(rel); dir != "." && !seen[dir]; dir = filepath.Dir(dir) {
			seen[dir] = true
			st, err := os.Lstat(filepath.Join(r.tree, dir))
			if err != nil {
				continue // new, too
			}
			if err := os.Chtimes(filepath.Join(r.work, "points", dir), st.ModTime(), st.ModTime()); err != nil {
				return err
			}
		}
	}
	return nil
}

// yield drops the binds that must not hide anything of the image.
func (r *rootfs) yield(binds []bind) []bind {
	return slices.DeleteFunc(binds, func(b bind) bool {
		if !b.yields {
			return false
		}
		rel, err := r.resolve(b.target)
		if err != nil || rel == "" {
			return true
		}
		_, err = os.Lstat(filepath.Join(r.tree, rel))
		return err == nil
	})
}

// resolve follows the symbolic links of the image in p and returns the path
// within the image, without a leading slash.
func (r *rootfs) resolve(p string) (string, error) {
	full, err := securejoin.SecureJoin(r.tree, p)
	if err != nil {
		return "", err
	}
	return strings.TrimPrefix(strings.TrimPrefix(full, r.tree), "/"), nil
}

// addWorkdir makes the image's own WorkingDir when the image lacks it, as
// other runtimes do: a Dockerfile's WORKDIR need not have made a layer.
func (r *rootfs) addWorkdir(dir string) error {
	rel, err := r.resolve(dir)
	if err != nil || rel == "" {
		return err
	}
	if err := r.addPoint(rel, true); err != nil {
		return userError(fmt.Sprintf("the image's WorkingDir %s: %v", dir, err), "give --container-workdir")
	}
	return nil
}

// target resolves a bind's target. What takes the place of a link of the image
// gets a file of its own there, which hides the link.
func (r *rootfs) target(b *bind) (string, error) {
	if !b.replaces {
		return r.resolve(b.target)
	}
	dir, err := r.resolve(filepath.Dir(b.target))
	if err != nil {
		return "", err
	}
	rel := filepath.Join(dir, filepath.Base(b.target))
	st, err := os.Lstat(filepath.Join(r.tree, rel))
	if err != nil || st.Mode()&os.ModeSymlink == 0 {
		return r.resolve(b.target)
	}
	r.points = append(r.points, point{rel: rel})
	return rel, errors.Join(r.addDirs(dir), r.addFile(rel))
}

// addPoint makes rel in the layer unless the image has it in the right form.
// Folders on the way keep the mode they have in the image.
func (r *rootfs) addPoint(rel string, isDir bool) error {
	if ok, err := exists(filepath.Join(r.tree, rel), isDir); ok || err != nil {
		return err
	}
	r.points = append(r.points, point{rel: rel, isDir: isDir})
	if isDir {
		return r.addDirs(rel)
	}
	if err := r.addDirs(filepath.Dir(rel)); err != nil {
		return err
	}
	return r.addFile(rel)
}

// addDirs makes rel and the folders above it in the layer.
func (r *rootfs) addDirs(rel string) error {
	if rel == "." || rel == "" {
		return nil
	}
	if err := r.addDirs(filepath.Dir(rel)); err != nil {
		return err
	}
	return r.addDir(rel)
}

// exists tells whether p is there in the form that a mount needs.
func exists(p string, isDir bool) (bool, error) {
	st, err := os.Lstat(p)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return false, nil
	case errors.Is(err, unix.ENOTDIR):
		return false, errors.New("a file is in the way")
	case err != nil:
		return false, err
	case isDir && !st.IsDir():
		return false, errors.New("a folder is mounted onto a file")
	case !isDir && st.IsDir():
		return false, errors.New("a file is mounted onto a folder")
	}
	return true, nil
}

func (r *rootfs) addDir(rel string) error {
	mode := os.FileMode(0o755)
	if st, err := os.Lstat(filepath.Join(r.tree, rel)); err == nil {
		if !st.IsDir() {
			return errors.New("a file is in the way")
		}
		mode = st.Mode() & (os.ModePerm | os.ModeSticky)
	}
	p := filepath.Join(r.work, "points", rel)
	if err := os.Mkdir(p, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	// The user must be able to pass: a folder that root alone may enter in
	// the image would hide the mount below it.
	return os.Chmod(p, mode|0o700)
}

func (r *rootfs) addFile(rel string) error {
	f, err := os.OpenFile(filepath.Join(r.work, "points", rel), os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	return f.Close()
}

// mount puts the layers together below r.path. Overlays in user namespaces
// need Linux 5.11.
func (r *rootfs) mount(writable bool) error {
	return r.explainOverlay(r.assemble(writable))
}

func (r *rootfs) assemble(writable bool) error {
	points := filepath.Join(r.work, "points")
	if r.changes != "" {
		return r.mountChanges(points)
	}
	if writable { // changes stay in the tmpfs
		return overlay(r.path, fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s,userxattr",
			escape(r.image), escape(points), escape(filepath.Join(r.work, "scratch"))))
	}
	if err := r.addTopLevel(); err != nil {
		return fmt.Errorf("assemble the root file system: %w", err)
	}
	return r.addNewFolders(points)
}

// addTopLevel builds a read-only root out of the image's top-level entries,
// each bound by itself, so that what lies below is the image's own mount: an
// overlay keeps a second inode for every file, which doubles the cost of
// walking a tree. Only a folder that lacks a mount point becomes an overlay,
// of lower layers alone, which can't be remounted writable.
func (r *rootfs) addTopLevel() error {
	entries, err := os.ReadDir(r.image)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := r.addEntry(e); err != nil {
			return err
		}
	}
	return nil
}

func (r *rootfs) addEntry(e os.DirEntry) error {
	from, to := filepath.Join(r.image, e.Name()), filepath.Join(r.path, e.Name())
	if e.Type()&os.ModeSymlink != 0 {
		target, err := os.Readlink(from)
		if err != nil {
			return err
		}
		return os.Symlink(target, to)
	}
	if !e.IsDir() {
		return errors.Join(os.WriteFile(to, nil, 0o600), bindOnto(from, to))
	}
	if err := os.Mkdir(to, 0o755); err != nil {
		return err
	}
	points := filepath.Join(r.work, "points", e.Name())
	if _, err := os.Lstat(points); err != nil {
		return bindOnto(from, to)
	}
	return overlay(to, fmt.Sprintf("lowerdir=%s:%s", escape(points), escape(from)))
}

// addNewFolders moves the mount points that have no folder of the image above
// them into the root.
func (r *rootfs) addNewFolders(points string) error {
	entries, err := os.ReadDir(points)
	if err != nil {
		return err
	}
	for _, e := range entries {
		to := filepath.Join(r.path, e.Name())
		if _, err := os.Lstat(to); err == nil {
			continue
		}
		if err := os.Rename(filepath.Join(points, e.Name()), to); err != nil {
			return err
		}
	}
	return nil
}

// bindOnto keeps the flags of from's mount, which are locked here, and of what
// is mounted below it: an image has nothing there, a user's folder may.
func bindOnto(from, to string) error {
	return os.NewSyscallError("bind", unix.Mount(from, to, "", unix.MS_BIND|unix.MS_REC, ""))
}

func overlay(path, options string) error {
	err := unix.Mount("overlay", path, "overlay", unix.MS_NOSUID|unix.MS_NODEV, options)
	if err != nil {
		return &overlayError{err}
	}
	return nil
}

// An overlayError is the kernel's refusal of an overlay.
type overlayError struct{ err error }

// Error implements error.
func (e *overlayError) Error() string { return "overlay: " + e.err.Error() }

// Unwrap returns the kernel's word.
func (e *overlayError) Unwrap() error { return e.err }

// explainOverlay says what to do about an overlay that the kernel refuses. It
// refuses to hide one of several mounts that belong together.
func (r *rootfs) explainOverlay(err error) error {
	var refused *overlayError
	switch {
	case !errors.As(err, &refused):
		return err
	case r.folder != "" && errors.Is(err, unix.EINVAL):
		return userError(fmt.Sprintf("image %s: other file systems are mounted in that folder, where the container has to add or change something", r.folder),
			"unmount them, or make the container read-only, or add no mount points there")
	}
	return siteError(fmt.Sprintf("mount the root file system: %v", refused), "overlayfs in user namespaces needs Linux 5.11")
}

// escape protects the separators of overlay's options in a path.
func escape(p string) string {
	return strings.NewReplacer(`\`, `\\`, ":", `\:`, ",", `\,`).Replace(p)
}

// bindFolder makes a folder the tree below: an unpacked image, or a root file
// system of the user's own, with what is mounted in it. Nothing is copied and
// nothing in it changes. Mounts that the kernel locks together can't be bound
// one without the other, so all of them are.
func (r *rootfs) bindFolder(folder string) error {
	r.image, r.folder = filepath.Join(r.work, "image"), folder
	if err := os.Mkdir(r.image, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(folder, r.image, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return badFile(folder, os.NewSyscallError("bind", err), "give a folder that you may enter")
	}
	// It is shared by all containers of this user. Binds of it copy the flags.
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV}
	return os.NewSyscallError("mount_setattr", unix.MountSetattr(unix.AT_FDCWD, r.image, unix.AT_RECURSIVE, &attr))
}
