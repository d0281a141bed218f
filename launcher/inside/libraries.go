package inside

import (
	"debug/elf"
	"errors"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/berth-hpc/berth/launcher/devices"
	"github.com/berth-hpc/berth/launcher/ldcache"
)

const cachePath = "/etc/ld.so.cache"

// doWork does what a device's hooks would do to the root file system, in the
// layer above the image: links, and libraries that the loader finds. It
// returns the bind of the new cache, if there is one; more are further entries
// of it.
func (r *rootfs) doWork(w *devices.Work, binds []bind, more []ldcache.Entry) ([]bind, error) {
	libraries := append(r.compat(w.Compat), found(w.Folders, binds)...)
	for _, l := range libraries {
		if err := r.addLink(devices.Link{Target: path.Base(l.Path), Path: path.Join(path.Dir(l.Path), l.Name)}); err != nil {
			return nil, err
		}
	}
	for _, l := range w.Links {
		if err := r.addLink(l); err != nil {
			return nil, err
		}
	}
	return r.cacheWith(append(libraries, more...))
}

// cacheWith makes the loader's cache of the image's and some more libraries.
// A loader of another C library than glibc takes no notice of it.
func (r *rootfs) cacheWith(libraries []ldcache.Entry) ([]bind, error) {
	if len(libraries) == 0 {
		return nil, nil
	}
	var entries []ldcache.Entry
	if data, err := r.readTree(cachePath); err == nil {
		entries, _ = ldcache.Parse(data) // one that can't be read is as good as none
	}
	out := filepath.Join(r.work, "ld.so.cache")
	if err := os.WriteFile(out, ldcache.Format(ldcache.Add(entries, libraries)), 0o644); err != nil {
		return nil, err
	}
	return []bind{fileBind(out, cachePath)}, nil
}

// found returns the libraries among bound files that lie in these folders of
// the container.
func found(folders []string, binds []bind) []ldcache.Entry {
	var libraries []ldcache.Entry
	for _, b := range binds {
		if b.tmpfs || !slices.Contains(folders, path.Dir(b.target)) {
			continue
		}
		if e, ok := library(b.source, b.target); ok {
			libraries = append(libraries, e)
		}
	}
	return libraries
}

// library reads a file's soname and machine. What is no library is none.
func library(file, target string) (ldcache.Entry, bool) {
	f, err := elf.Open(file)
	if err != nil {
		return ldcache.Entry{}, false
	}
	defer f.Close()
	names, err := f.DynString(elf.DT_SONAME)
	flags := ldcache.Flags(f.Machine)
	if err != nil || len(names) != 1 || flags == 0 || !isFileName(names[0]) {
		return ldcache.Entry{}, false
	}
	return ldcache.Entry{Name: names[0], Path: target, Flags: flags}, true
}

// isFileName says whether a link of this name is in the folder that it is put in.
func isFileName(s string) bool { return s != "" && s != "." && s != ".." && !strings.Contains(s, "/") }

// compat returns the image's own libraries of CUDA's compatibility package if
// they are newer than the driver: only then they work, and only then they are
// needed.
func (r *rootfs) compat(driver string) []ldcache.Entry {
	const dir = "/usr/local/cuda/compat"
	rel, err := r.resolve(dir)
	if driver == "" || err != nil {
		return nil
	}
	files, _ := filepath.Glob(filepath.Join(r.tree, rel, "libcuda.so.*.*"))
	if len(files) != 1 || major(strings.TrimPrefix(filepath.Base(files[0]), "libcuda.so.")) <= major(driver) {
		return nil
	}
	files, _ = filepath.Glob(filepath.Join(r.tree, rel, "lib*.so.*.*"))
	var libraries []ldcache.Entry
	for _, f := range files {
		if e, ok := library(f, path.Join("/", rel, filepath.Base(f))); ok {
			libraries = append(libraries, e)
		}
	}
	return libraries
}

func major(version string) int {
	text, _, _ := strings.Cut(version, ".")
	n, _ := strconv.Atoi(text)
	return n
}

// addLink makes a symbolic link unless something else than a link is in its
// place.
func (r *rootfs) addLink(l devices.Link) error {
	dir, err := r.resolve(path.Dir(l.Path))
	if err != nil {
		return err
	}
	rel := path.Join(dir, path.Base(l.Path))
	st, err := os.Lstat(filepath.Join(r.tree, rel))
	if err == nil && (st.Mode()&os.ModeSymlink == 0 || r.changes != "") {
		return nil
	}
	parts := strings.Split(dir, "/")
	for i := range parts {
		if dir == "" {
			break
		}
		if err := r.addDir(path.Join(parts[:i+1]...)); err != nil {
			return userError("make the link "+l.Path+": "+err.Error(), "choose another image: it has something else there")
		}
	}
	r.points = append(r.points, point{rel: rel, link: l.Target})
	err = os.Symlink(l.Target, filepath.Join(r.work, "points", rel))
	if errors.Is(err, os.ErrExist) {
		return nil
	}
	return err
}
