package inside

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Images declare as volumes what their programs write to. Other runtimes make
// a folder on disk for each, with a copy of what the image has there. In a
// read-only container a volume is writable in memory here, and gone with the
// container; in a writable one it is a folder like any other.

// A volume is a folder that is to be writable.
type volume struct {
	rel   string // in the container's root
	place string // a folder of ours with upper, work and merged
}

// planVolumes puts binds for volumes before the others, which may lie below
// them. What a bind shows already is none of the image's.
func (r *rootfs) planVolumes(declared []string, writable bool, binds []bind) ([]bind, error) {
	var own []bind
	for i, dir := range slices.Sorted(slices.Values(declared)) {
		rel, err := r.resolve(path.Join("/", dir))
		if err != nil || rel == "" || covers(binds, "/"+rel) || covers(own, "/"+rel) {
			continue // no usable path, or there already
		}
		if there, err := os.Lstat(filepath.Join(r.tree, rel)); err == nil && !there.IsDir() {
			r.notes = append(r.notes, fmt.Sprintf("the image's volume %s is no folder", dir))
			continue
		}
		if writable {
			if err := r.addPoint(rel, true); err != nil {
				return nil, fmt.Errorf("make the volume %s: %w", dir, err)
			}
			continue
		}
		v := volume{rel, filepath.Join(r.work, "volumes", strconv.Itoa(i))}
		r.volumes = append(r.volumes, v)
		own = append(own, bind{source: filepath.Join(v.place, "merged"), target: "/" + rel, isDir: true, propagation: unix.MS_SLAVE | unix.MS_REC})
	}
	return append(own, binds...), nil
}

// mountVolumes makes the volumes once every mount point is in the layer of
// mount points, which is between a volume and what the image has there.
func (r *rootfs) mountVolumes() error {
	for _, v := range r.volumes {
		if err := r.mountVolume(v); err != nil {
			return fmt.Errorf("make the volume /%s: %w", v.rel, err)
		}
	}
	return nil
}

func (r *rootfs) mountVolume(v volume) error {
	for _, d := range []string{"merged", "upper", "work"} {
		if err := os.MkdirAll(filepath.Join(v.place, d), 0o755); err != nil {
			return err
		}
	}
	mode := os.FileMode(0o755)
	lower := []string{escape(filepath.Join(r.work, "points", v.rel))} // the bind made it, if the image has none
	if _, err := os.Lstat(filepath.Join(r.work, "points", v.rel)); err != nil {
		lower = nil
	}
	if st, err := os.Lstat(filepath.Join(r.tree, v.rel)); err == nil {
		mode = st.Mode() & (os.ModePerm | os.ModeSticky)
		lower = append(lower, escape(filepath.Join(r.tree, v.rel)))
	}
	upper := filepath.Join(v.place, "upper")
	if err := os.Chmod(upper, mode|0o700); err != nil {
		return err
	}
	return overlay(filepath.Join(v.place, "merged"), fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s,userxattr",
		strings.Join(lower, ":"), escape(upper), escape(filepath.Join(v.place, "work"))))
}
