package inside

import (
	"debug/elf"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/berth-hpc/berth/launcher"
	"github.com/berth-hpc/berth/launcher/ldcache"
)

// An mpi is a kind of MPI library, by the names of its files, and the ways in
// which it can learn its rank.
type mpi struct {
	name    string
	sonames []string
	pmi2    bool // understands PMI, which srun --mpi=pmi2 offers, as it is
	remedy  string
}

// mpis are those whose names are agreed upon: Open MPI since 2.0, and the ABI
// of MPICH that Intel MPI and MVAPICH share. Debian calls MPICH's libmpich.
func mpis() []mpi {
	return []mpi{
		{name: "Open MPI", sonames: []string{"libmpi.so.40", "libmpi.so.20"}, remedy: "srun --mpi=pmix"},
		{name: "MPICH", sonames: []string{"libmpi.so.12", "libmpich.so.12"}, pmi2: true, remedy: "srun --mpi=pmi2"},
	}
}

// checkMPI tells the user before their tasks start as so many programs with
// one rank each: if the image's MPI does not understand what the launcher
// offers. It looks for files alone, and only for steps of several tasks.
func (r *rootfs) checkMPI(req *launcher.Request, image *imageConfig) []string {
	env := map[string]string{}
	for _, v := range req.Variables {
		name, value, _ := strings.Cut(v, "=")
		env[name] = value
	}
	tasks, _ := strconv.Atoi(env["SLURM_STEP_NUM_TASKS"])
	if !req.CheckMPI || tasks < 2 || !first(env) || said(env["BERTH_MPI_CHECK"], "0", "no", "off", "false") {
		return nil
	}
	l := r.libraries(image)
	var found []mpi
	for _, m := range mpis() {
		if !slices.ContainsFunc(m.sonames, l.has) {
			continue
		}
		if m.understands(env, l) {
			return nil
		}
		found = append(found, m)
	}
	program, uses := r.usesMPI(req.Command, image)
	if len(found) == 0 || program && !uses {
		return nil
	}
	if !uses {
		return []string{fmt.Sprintf("warning: if this step uses the image's %s: %s; BERTH_MPI_CHECK=no silences this", found[0].name, found[0].cause(env, tasks))}
	}
	return []string{fmt.Sprintf("warning: the image's %s will not work as one program: %s", found[0].name, found[0].cause(env, tasks))}
}

// cause is what the user should know, and do. Started in this way, MPICH runs
// alone in each task, and Open MPI since 4.0 fails in MPI_Init.
func (m *mpi) cause(env map[string]string, tasks int) string {
	return fmt.Sprintf("it cannot learn its rank from %s, so each of the %d tasks is rank 0 of 1, or fails in MPI_Init; start it by %s",
		offer(env), tasks, m.remedy)
}

// first says whether this container is the one of the step that speaks.
func first(env map[string]string) bool {
	return said(env["SLURM_NODEID"], "", "0") && said(env["SLURM_PROCID"], "", "0")
}

func said(value string, words ...string) bool { return slices.Contains(words, strings.ToLower(value)) }

// understands says whether what the launcher offers tells m its rank.
func (m *mpi) understands(env map[string]string, l *libraries) bool {
	switch offer(env) {
	case "--mpi=pmix":
		return !m.pmi2 || l.has("libpmix.so.2")
	case "--mpi=pmi2":
		return m.pmi2 || l.openMPIHasPMI()
	}
	return false
}

// offer is what the variables that the launcher has set by now tell.
func offer(env map[string]string) string {
	switch {
	case env["PMIX_RANK"] != "" || env["PMIX_NAMESPACE"] != "":
		return "--mpi=pmix"
	case env["PMI_FD"] != "":
		return "--mpi=pmi2"
	}
	return "--mpi=none"
}

// usesMPI looks into the program: whether it is one, not a script that may run
// anything, and whether it is linked with an MPI.
func (r *rootfs) usesMPI(command string, image *imageConfig) (program, uses bool) {
	for _, p := range r.programs(command, image) {
		f, err := elf.Open(p)
		if err != nil {
			continue
		}
		needed, _ := f.ImportedLibraries()
		f.Close()
		if interpreter(command) {
			return false, false
		}
		return true, slices.ContainsFunc(needed, func(n string) bool { return strings.HasPrefix(n, "libmpi") })
	}
	return false, false
}

// interpreter says whether a program runs what others wrote: a shell, Python.
func interpreter(command string) bool {
	name := strings.TrimRight(path.Base(command), "0123456789.")
	return slices.Contains([]string{"sh", "bash", "dash", "zsh", "ksh", "env", "python", "perl", "ruby", "R", "Rscript", "julia", "lua", "busybox", "time", "numactl", "taskset", "stdbuf"}, name)
}

// programs are the files that command may be.
func (r *rootfs) programs(command string, image *imageConfig) []string {
	if strings.Contains(command, "/") {
		return []string{r.within(command), command}
	}
	var files []string
	for _, dir := range filepath.SplitList(image.variable("PATH")) {
		files = append(files, r.within(path.Join(dir, command)))
	}
	return files
}

// within is where a path of the container lies in its tree, or a name of no
// file.
func (r *rootfs) within(p string) string {
	rel, err := r.resolve(p)
	if err != nil {
		return ""
	}
	return filepath.Join(r.tree, rel)
}

// variable is the image's.
func (c *imageConfig) variable(name string) string {
	for _, e := range slices.Backward(c.Config.Env) {
		if v, ok := strings.CutPrefix(e, name+"="); ok {
			return v
		}
	}
	return ""
}

// libraries are where an image's loader looks.
type libraries struct {
	r       *rootfs
	entries []ldcache.Entry
	folders []string // besides the cache
}

// mpiFolders are those that packages and modules use and loaders do not know.
var mpiFolders = []string{
	"/usr/local/lib", "/usr/local/lib64", "/usr/lib", "/usr/lib64", "/lib", "/lib64",
	"/usr/lib64/openmpi/lib", "/usr/lib64/mpich/lib", "/usr/lib64/mvapich2/lib",
	"/opt/openmpi/lib", "/opt/ompi/lib", "/opt/mpich/lib", "/opt/mvapich2/lib",
	"/opt/hpcx/ompi/lib", "/opt/amazon/openmpi/lib", "/opt/intel/oneapi/mpi/latest/lib",
}

func (r *rootfs) libraries(image *imageConfig) *libraries {
	l := &libraries{r: r, folders: append(filepath.SplitList(image.variable("LD_LIBRARY_PATH")), mpiFolders...)}
	if data, err := r.readTree(cachePath); err == nil {
		l.entries, _ = ldcache.Parse(data)
	}
	return l
}

// find returns where the container has a library; "" for nowhere.
func (l *libraries) find(soname string) string {
	for _, dir := range l.folders {
		p := path.Join(dir, soname)
		if _, err := os.Stat(l.r.within(p)); err == nil {
			return p
		}
	}
	for _, e := range l.entries {
		if e.Name == soname {
			return e.Path
		}
	}
	return ""
}

func (l *libraries) has(soname string) bool { return l.find(soname) != "" }

// openMPIHasPMI says whether Open MPI 4 was built with Slurm's PMI, which few
// are.
func (l *libraries) openMPIHasPMI() bool {
	lib := l.find("libmpi.so.40")
	if lib == "" {
		return false
	}
	for _, plugins := range []string{path.Join(path.Dir(lib), "openmpi"), path.Join(path.Dir(lib), "openmpi", "lib", "openmpi")} {
		for _, name := range []string{"mca_pmix_s1.so", "mca_pmix_s2.so"} {
			if _, err := os.Stat(l.r.within(path.Join(plugins, name))); err == nil {
				return true
			}
		}
	}
	return false
}
