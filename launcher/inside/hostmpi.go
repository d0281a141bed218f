package inside

import (
	"debug/elf"
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/berth-hpc/berth/launcher"
	"github.com/berth-hpc/berth/launcher/ldcache"
	"golang.org/x/sys/unix"
)

// hostFolder is where a container has the host's libraries.
const hostFolder = "/.berth-mpi"

// A hostLibrary is one of the host's that a container is to use.
type hostLibrary struct {
	ldcache.Entry
	file   string
	needed []string // sonames
	glibc  version  // the newest that it wants; zero for none
}

// hostMPI puts the host's MPI, or libfabric, in the place of the image's. It
// refuses what could not work, with the reason: a program that finds half of
// what it needs dies with a message of the loader's on every rank.
func (r *rootfs) hostMPI(h *launcher.HostMPI, image *imageConfig) ([]bind, []ldcache.Entry, error) {
	if !h.Use {
		return nil, nil, nil
	}
	libs, err := openHost(h.Libraries)
	if err != nil {
		return nil, nil, err
	}
	l := r.libraries(image)
	libs, err = l.sameABI(libs)
	if err != nil {
		return nil, nil, err
	}
	if err := l.canLoad(libs); err != nil {
		return nil, nil, err
	}
	var binds []bind
	var entries []ldcache.Entry
	for _, lib := range libs {
		lib.Path = path.Join(hostFolder, lib.Name)
		entries = append(entries, lib.Entry)
		binds = append(binds, fileBind(lib.file, lib.Path))
		// LD_LIBRARY_PATH and run paths of the image count more than the cache.
		if there := l.find(lib.Name); there != "" {
			binds = append(binds, fileBind(lib.file, there))
		}
	}
	for _, dir := range h.Folders {
		binds = append(binds, bind{source: dir, target: dir, readonly: true, optional: true, propagation: unix.MS_SLAVE | unix.MS_REC})
	}
	return binds, entries, nil
}

// openHost reads the host's libraries, of which the first of a name counts.
func openHost(patterns []string) ([]hostLibrary, error) {
	var libs []hostLibrary
	for _, p := range patterns {
		files, _ := filepath.Glob(p) // the patterns were checked with the settings
		for _, f := range files {
			lib, ok := readLibrary(f)
			if ok && !slices.ContainsFunc(libs, func(o hostLibrary) bool { return o.Name == lib.Name }) {
				libs = append(libs, lib)
			}
		}
	}
	if len(libs) == 0 {
		return nil, siteError("use the host's MPI: this machine has none of the libraries in mpi.host_libraries",
			"run without it, or ask the administrator to install them or to correct the setting")
	}
	return libs, nil
}

func readLibrary(file string) (hostLibrary, bool) {
	entry, ok := library(file, file)
	if !ok {
		return hostLibrary{}, false
	}
	f, err := elf.Open(file)
	if err != nil {
		return hostLibrary{}, false
	}
	defer f.Close()
	lib := hostLibrary{Entry: entry, file: file}
	lib.needed, _ = f.ImportedLibraries()
	needs, _ := f.DynamicVersionNeeds()
	for _, n := range needs {
		for _, dep := range n.Needs {
			lib.glibc = later(lib.glibc, glibcVersion(dep.Dep))
		}
	}
	return lib, true
}

// sameABI lets the host's MPI only into an image that was made for its ABI.
// MPICH's has two names; the image's counts.
func (l *libraries) sameABI(libs []hostLibrary) ([]hostLibrary, error) {
	for _, m := range mpis() {
		i := slices.IndexFunc(libs, func(lib hostLibrary) bool { return slices.Contains(m.sonames, lib.Name) })
		if i < 0 {
			continue
		}
		for _, name := range m.sonames {
			if l.has(name) && (name == libs[i].Name || m.pmi2) {
				libs = slices.Clone(libs)
				libs[i].Name = name
				return libs, nil
			}
		}
		return nil, userError(fmt.Sprintf("use the host's MPI: it is %s (%s), and the image has %s", m.name, libs[i].Name, l.describeMPI()),
			"run with the image's own MPI, or use an image that was built with "+m.name)
	}
	return libs, nil // libfabric alone, say
}

func (l *libraries) describeMPI() string {
	for _, m := range mpis() {
		for _, s := range m.sonames {
			if l.has(s) {
				return fmt.Sprintf("%s (%s)", m.name, s)
			}
		}
	}
	return "no MPI that can be replaced"
}

// canLoad compares what the host's libraries need with what is there.
func (l *libraries) canLoad(libs []hostLibrary) error {
	libc := l.find("libc.so.6")
	if libc == "" {
		return userError("use the host's MPI: the image has no glibc, which the host's libraries need", "use an image that is based on glibc (Debian, Ubuntu, Rocky, …)")
	}
	has := providedGlibc(l.r.within(libc))
	for _, lib := range libs {
		if lib.glibc.after(has) {
			return userError(fmt.Sprintf("use the host's MPI: %s needs glibc %s, and the image has %s", lib.file, lib.glibc, has),
				"use an image that is based on a newer distribution, or its own MPI")
		}
		for _, name := range lib.needed {
			brought := slices.ContainsFunc(libs, func(o hostLibrary) bool { return o.Name == name })
			if !brought && !l.has(name) {
				return siteError(fmt.Sprintf("use the host's MPI: %s needs %s, which neither the image nor mpi.host_libraries has", lib.file, name),
					"ask the administrator to add "+name+" to mpi.host_libraries, or run with the image's own MPI")
			}
		}
	}
	return nil
}

// A version is glibc's, as in 2.36.
type version struct{ major, minor int }

// String implements fmt.Stringer.
func (v version) String() string { return fmt.Sprintf("%d.%d", v.major, v.minor) }

func (v version) after(o version) bool {
	return v.major > o.major || v.major == o.major && v.minor > o.minor
}

func later(a, b version) version {
	if b.after(a) {
		return b
	}
	return a
}

// glibcVersion reads the name of a version of glibc's symbols; zero for others.
func glibcVersion(name string) version {
	var v version
	if text, ok := strings.CutPrefix(name, "GLIBC_"); ok {
		_, _ = fmt.Sscanf(text, "%d.%d", &v.major, &v.minor)
	}
	return v
}

// providedGlibc is the newest version that a libc.so.6 defines.
func providedGlibc(file string) version {
	var v version
	f, err := elf.Open(file)
	if err != nil {
		return v
	}
	defer f.Close()
	versions, _ := f.DynamicVersions()
	for _, d := range versions {
		v = later(v, glibcVersion(d.Name))
	}
	return v
}
