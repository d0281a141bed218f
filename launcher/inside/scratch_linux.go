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

// chooseScratch makes a folder on a disk for what is changed in a writable
// root, if the site wants that or memory can't hold it: an overlay marks
// folders that hide lower ones by an extended attribute, and without it
// `rm -r d; mkdir d` fails.
func (r *rootfs) chooseScratch(req *launcher.Request) error {
	s := req.Scratch
	if !req.Writable || r.changes != "" || !s.OnDisk && !s.NoAttributes && checkAttributes(r.work) == nil {
		return nil
	}
	err := r.makeScratch(req)
	if err == nil {
		err = checkAttributes(r.upper())
	}
	if err == nil || s.OnDisk {
		return r.cannotUse(s, err)
	}
	// Most programs can do without.
	return r.dropScratch()
}

// scratchFolder puts the user and the job into the site's path.
func scratchFolder(req *launcher.Request) (string, error) {
	if req.Scratch.Folder == "" {
		return "", errors.New("container.scratch names no folder")
	}
	rest, temporary := strings.CutPrefix(req.Scratch.Folder, "%t")
	folder, known := launcher.Expand(rest, pathValues(req))
	switch {
	case !known:
		return "", fmt.Errorf("what stands for a part of %s is not known here", req.Scratch.Folder)
	case !temporary:
		return folder, nil
	case filepath.IsAbs(req.Job.TmpDir):
		return filepath.Clean(req.Job.TmpDir) + folder, nil
	}
	return os.TempDir() + folder, nil
}

func (r *rootfs) makeScratch(req *launcher.Request) error {
	folder, err := scratchFolder(req)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return err
	}
	dir, err := os.MkdirTemp(folder, ".berth-")
	if err != nil {
		return err
	}
	r.changes, r.scratch = dir, dir
	for _, name := range []string{changes.UpperName, changes.WorkName} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			return err
		}
	}
	return nil
}

func (r *rootfs) dropScratch() error {
	dir := r.scratch
	r.changes, r.scratch = "", ""
	if dir == "" {
		return nil
	}
	return os.RemoveAll(dir)
}

func (r *rootfs) cannotUse(s launcher.Scratch, err error) error {
	if err == nil {
		return nil
	}
	return errors.Join(siteError(fmt.Sprintf("keep the container's changes below %s: %v", s.Folder, bare(err)), scratchRemedy), r.dropScratch())
}

const scratchRemedy = "ask the administrator to correct container.scratch: a folder on a local disk (ext4, xfs, btrfs) of the node, where users may make folders"

// handScratch has the container's folder removed when the container is gone:
// that is when its root file system is unmounted, which is told by a watch
// on it. A watch keeps no file system mounted.
func (r *rootfs) handScratch(channel *os.File) error {
	if r.scratch == "" {
		return nil
	}
	end, err := r.watchEnd()
	if err != nil {
		return errors.Join(err, r.dropScratch())
	}
	defer end.Close()
	folder, err := os.Open(filepath.Dir(r.scratch))
	if err != nil {
		return errors.Join(err, r.dropScratch())
	}
	defer folder.Close()
	return launcher.SendReply(channel, &launcher.Reply{Scratch: filepath.Base(r.scratch)}, end, folder)
}

// watchEnd returns what tells that the root file system is unmounted.
func (r *rootfs) watchEnd() (*os.File, error) {
	watch, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	if err != nil {
		return nil, siteError(fmt.Sprintf("watch the container's end: %v", os.NewSyscallError("inotify_init", err)),
			"sysctl fs.inotify.max_user_instances says how many containers a user may have on a node whose changes are on disk")
	}
	end := os.NewFile(uintptr(watch), "inotify")
	// Any event will do: the one that counts comes unasked (inotify(7), IN_UNMOUNT).
	if _, err := unix.InotifyAddWatch(watch, r.path, unix.IN_DELETE_SELF); err != nil {
		end.Close()
		return nil, os.NewSyscallError("inotify_add_watch", err)
	}
	return end, nil
}
