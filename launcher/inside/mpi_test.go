package inside

import (
	"debug/elf"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/berth-hpc/berth/launcher"
	"github.com/berth-hpc/berth/launcher/ldcache"
)

// mpiTree is an image's tree with libraries by these paths, in a loader's
// cache of 300 more.
func mpiTree(tb testing.TB, paths ...string) *rootfs {
	tb.Helper()
	r := &rootfs{tree: tb.TempDir()}
	flags := ldcache.Flags(elf.EM_X86_64)
	var entries []ldcache.Entry
	for i := range 300 {
		entries = append(entries, ldcache.Entry{Name: fmt.Sprintf("libother%d.so.1", i), Path: fmt.Sprintf("/usr/lib/libother%d.so.1", i), Flags: flags})
	}
	for _, p := range paths {
		write(tb, filepath.Join(r.tree, p), nil)
		entries = append(entries, ldcache.Entry{Name: filepath.Base(p), Path: p, Flags: flags})
	}
	write(tb, filepath.Join(r.tree, cachePath), ldcache.Format(entries))
	return r
}

func write(tb testing.TB, path string, data []byte) {
	tb.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		tb.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		tb.Fatal(err)
	}
}

func TestCheckMPI(t *testing.T) {
	const openMPI, mpich = "/usr/lib/x/libmpi.so.40", "/usr/lib/x/libmpich.so.12"
	for _, tc := range []struct {
		name      string
		libraries []string
		variables string // besides two tasks
		want      string // "" is no warning
	}{
		{"Open MPI, nothing offered", []string{openMPI}, "", "srun --mpi=pmix"},
		{"Open MPI, PMIx", []string{openMPI}, "PMIX_RANK=0", ""},
		{"Open MPI, PMI2", []string{openMPI}, "PMI_FD=9", "srun --mpi=pmix"},
		{"Open MPI with Slurm's PMI, PMI2", []string{openMPI, "/usr/lib/x/openmpi/mca_pmix_s2.so"}, "PMI_FD=9", ""},
		{"MPICH, nothing offered", []string{mpich}, "", "srun --mpi=pmi2"},
		{"MPICH, PMI2", []string{mpich}, "PMI_FD=9", ""},
		{"MPICH, PMIx", []string{mpich}, "PMIX_RANK=0", "srun --mpi=pmi2"},
		{"MPICH with PMIx, PMIx", []string{mpich, "/usr/lib/libpmix.so.2"}, "PMIX_RANK=0", ""},
		{"both, PMI2", []string{openMPI, mpich}, "PMI_FD=9", ""},
		{"neither", nil, "", ""},
		{"in a folder that only modules know", []string{"/usr/lib64/openmpi/lib/libmpi.so.40"}, "", "srun --mpi=pmix"},
		{"another node", []string{openMPI}, "SLURM_NODEID=1", ""},
		{"silenced", []string{openMPI}, "BERTH_MPI_CHECK=no", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			req := &launcher.Request{CheckMPI: true, Variables: []string{"SLURM_STEP_NUM_TASKS=2", tc.variables}}
			notes := strings.Join(mpiTree(t, tc.libraries...).checkMPI(req, new(imageConfig)), "\n")
			if (notes == "") != (tc.want == "") || !strings.Contains(notes, tc.want) {
				t.Errorf("got %q, want %q", notes, tc.want)
			}
		})
	}
}

// What a step of several tasks pays for the look.
func BenchmarkCheckMPI(b *testing.B) {
	r := mpiTree(b, "/usr/lib/x/libmpi.so.40")
	req := &launcher.Request{CheckMPI: true, Variables: []string{"SLURM_STEP_NUM_TASKS=2"}}
	for b.Loop() {
		if len(r.checkMPI(req, new(imageConfig))) != 1 {
			b.Fatal("no warning")
		}
	}
}
