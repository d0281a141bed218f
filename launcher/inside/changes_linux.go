package inside

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/berth-hpc/berth/launcher"
	"github.com/berth-hpc/berth/launcher/changes"
	"golang.org/x/sys/unix"
)

// look makes r.tree show what the container's root will be: the image, with
// the changes that are kept.
func (r *rootfs) look() error {
	r.tree = r.image
	if r.changes == "" {
		return nil
	}
	if err := checkAttributes(r.upper()); err != nil && !r.inMemory {
		return r.cannotKeep(err)
	}
	r.tree = filepath.Join(r.work, "tree")
	if err := os.Mkdir(r.tree, 0o755); err != nil {
		return err
	}
	return r.explainOverlay(overlay(r.tree, fmt.Sprintf("lowerdir=%s:%s,userxattr", escape(r.upper()), escape(r.image))))
}

// separate keeps changes in memory apart from the mount points, for a container
// that is to be saved.
func (r *rootfs) separate(req *launcher.Request) error {
	if !req.Save || !req.Writable || r.changes != "" {
		return nil
	}
	r.changes, r.inMemory = filepath.Join(r.work, "changes"), true
	for _, dir := range []string{"", changes.UpperName, changes.WorkName} {
		if err := os.Mkdir(filepath.Join(r.changes, dir), 0o755); err != nil {
			return err
		}
	}
	return nil
}

func (r *rootfs) upper() string { return filepath.Join(r.changes, changes.UpperName) }

// mountChanges mounts the image with the layer of mount points on it as the
// lower and the kept changes as the upper layer, so that the mount points are
// in no upper layer and are not saved with the changes.
func (r *rootfs) mountChanges(points string) error {
	// An upper folder in use as a lower one elsewhere is undefined behaviour.
	if err := unix.Unmount(r.tree, unix.MNT_DETACH); err != nil {
		return os.NewSyscallError("umount", err)
	}
	options := fmt.Sprintf("lowerdir=%s:%s,upperdir=%s,workdir=%s,userxattr", escape(points), escape(r.image),
		escape(r.upper()), escape(filepath.Join(r.changes, changes.WorkName)))
	if r.scratch != "" {
		options += ",volatile" // nobody will miss what fsync(2) did not write
	}
	switch err := overlay(r.path, options); {
	case err != nil && r.inMemory:
		return r.explainOverlay(err)
	case err != nil:
		return r.cannotKeep(errors.Unwrap(err))
	}
	return r.addHiddenPoints()
}

// addHiddenPoints makes the mount points that the changes hide: in a folder
// that the container made, or that it removed and made again, nothing of lower
// layers is visible. These are noted, so that they are not saved.
func (r *rootfs) addHiddenPoints() error {
	var hidden []string
	for _, p := range r.points {
		if _, err := os.Lstat(filepath.Join(r.path, p.rel)); err == nil {
			continue
		}
		parts := strings.Split(p.rel, "/")
		for i := range parts {
			rel := filepath.Join(parts[:i+1]...)
			if _, err := os.Lstat(filepath.Join(r.path, rel)); err == nil {
				continue
			}
			hidden = append(hidden, rel)
			if err := changes.NotePoints(r.changes, hidden); err != nil { // before it is made
				return err
			}
			if err := r.makeHidden(rel, p, i < len(parts)-1); err != nil {
				return err
			}
		}
	}
	return nil
}

// makeHidden makes a point, or a folder above one. It leaves the time of the folder above as it is.
func (r *rootfs) makeHidden(rel string, p point, above bool) error {
	path := filepath.Join(r.path, rel)
	dir, err := os.Stat(filepath.Dir(path))
	if err != nil {
		return err
	}
	switch {
	case above || p.isDir:
		err = os.Mkdir(path, 0o755)
	case p.link != "":
		err = os.Symlink(p.link, path)
	default:
		err = os.WriteFile(path, nil, 0o644)
	}
	return errors.Join(err, os.Chtimes(filepath.Dir(path), dir.ModTime(), dir.ModTime()))
}

// checkAttributes says what keeps an overlay from marking folders in dir.
func checkAttributes(dir string) error {
	const probe = "user.overlay.berth"
	if err := unix.Setxattr(dir, probe, []byte("y"), 0); err != nil {
		return os.NewSyscallError("setxattr", err)
	}
	return os.NewSyscallError("removexattr", unix.Removexattr(dir, probe))
}

// cannotKeep explains why the folder of changes is no upper layer.
func (r *rootfs) cannotKeep(err error) error {
	var fs unix.Statfs_t
	kind := ""
	if statErr := unix.Statfs(r.changes, &fs); statErr == nil {
		kind = fmt.Sprintf(", which is on %s", fileSystemName(int64(fs.Type)))
	}
	if r.scratch != "" {
		return errors.Join(siteError(fmt.Sprintf("keep the container's changes below %s%s: %v", filepath.Dir(r.scratch), kind, err), scratchRemedy), r.dropScratch())
	}
	if r.kept != nil {
		return siteError(fmt.Sprintf("keep the container's changes in %s%s: %v", r.changes, kind, err), keptRemedy)
	}
	return siteError(fmt.Sprintf("keep the container's changes in %s%s: %v", r.changes, kind, err),
		"set BERTH_STORE_USER_DIR, or store.user_dir, to a folder on a local disk (ext4, xfs, btrfs): an overlay can't have its upper layer on a network file system")
}

// fileSystemName names the file systems that are likely to be refused
// (statfs(2)).
func fileSystemName(kind int64) string {
	names := map[int64]string{
		unix.NFS_SUPER_MAGIC: "NFS", unix.FUSE_SUPER_MAGIC: "FUSE", unix.OVERLAYFS_SUPER_MAGIC: "another overlay",
		unix.RAMFS_MAGIC: "ramfs", unix.TMPFS_MAGIC: "tmpfs", unix.AFS_SUPER_MAGIC: "AFS", unix.SMB2_SUPER_MAGIC: "SMB",
		unix.CIFS_SUPER_MAGIC: "SMB", 0x0bd00bd0: "Lustre", 0x47504653: "GPFS", 0x19830326: "BeeGFS",
	}
	if name, ok := names[kind&0xffffffff]; ok {
		return name
	}
	return fmt.Sprintf("a file system of type %#x", kind)
}
