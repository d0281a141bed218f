package inside

import (
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/berth-hpc/berth/launcher"
	"golang.org/x/sys/unix"
)

// manyIDs says whether this process's user namespace maps more than the user.
func manyIDs() bool {
	text, err := os.ReadFile("/proc/self/uid_map")
	return err == nil && strings.Count(string(text), "\n") > 1
}

// protectNode keeps files of the user's further ids off the node's folders,
// where nobody could remove them but root: what has them can be written to in
// the container alone. It is a help and no guard: the ids are the user's.
func (r *rootfs) protectNode(req *launcher.Request, all []bind) ([]bind, error) {
	if !req.RemapRoot || req.Site.SubIDMounts || !manyIDs() {
		return all, nil
	}
	all = slices.Clone(all)
	for i := range all {
		b := &all[i]
		switch {
		case b.tmpfs || b.readonly:
		case b.by == byUser:
			return nil, userError("mount "+b.source+": a folder of the node can't be written to where you are root in appearance and have further ids",
				"add :ro to the mount; the site may allow it by container.sub_id_mounts")
		case r.ownOrKernels(b):
		case b.target == "/tmp" || b.target == "/var/tmp" || b.target == filepath.Clean(req.Job.TmpDir):
			*b = r.memory(req, b.target)
		default:
			b.readonly = true
		}
	}
	return append(all, r.memory(req, "/dev/shm")), nil
}

// ownOrKernels tells a file of this container, or of the kernel's.
func (r *rootfs) ownOrKernels(b *bind) bool {
	first, _, _ := strings.Cut(strings.TrimPrefix(b.source, "/"), "/")
	return strings.HasPrefix(b.source, r.work+"/") || slices.Contains([]string{"proc", "sys", "dev"}, first)
}

// memory is a folder for everybody that goes with the container.
func (r *rootfs) memory(req *launcher.Request, target string) bind {
	return bind{tmpfs: true, target: target, flags: unix.MS_NOSUID | unix.MS_NODEV, propagation: unix.MS_SLAVE | unix.MS_REC, data: "mode=1777" + limits(req.Scratch.Memory)}
}
