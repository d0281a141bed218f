package e2e

import "testing"

const lentMPI = `[mpi]
host_libraries = ["/usr/lib/x86_64-linux-gnu/libmpi.so.40", "/usr/lib/x86_64-linux-gnu/libopen-*.so.40"]
host_env = ["HOST_MPI=lent"]
`

// TestHostMPI has the nodes' Open MPI take the place of the image's.
func TestHostMPI(t *testing.T) {
	bothWays(t, func(t *testing.T, s *site) {
		const twoNodes = " --mpi=pmix -N2 --ntasks-per-node=2 --container-image=" + mpi
		t.Run("two nodes", func(t *testing.T) {
			r := s.hello(t, "srun --container-host-mpi"+twoNodes+" mpi-hello")
			if r.Code != 0 {
				t.Error(r)
			}
			checkRanks(t, r, 2)
		})
		const which = ` sh -c 'echo $HOST_MPI; ldd $(command -v mpi-hello)'`
		for how, lent := range map[string]int{
			"srun --container-host-mpi":         4,
			"BERTH_CONTAINER_HOST_MPI=yes srun": 4,
			"srun":                              0,
		} {
			r := s.as(t, "alice", how+twoNodes+which)
			if r.Code != 0 || times("libmpi.so.40 => /.berth-mpi/", r.Stdout) != lent || times("^lent$", r.Stdout) != lent {
				t.Errorf("%s: want %d tasks with the node's MPI: %v", how, lent, r)
			}
		}
		t.Run("another MPI", func(t *testing.T) {
			r := s.as(t, "alice", "srun --mpi=pmi2 -N2 -n2 --container-host-mpi --container-image="+mpich+" mpi-hello")
			check(t, r, 1, "^$", "")
			if n := times(`^berth: error: .*it is Open MPI \(libmpi\.so\.40\), and the image has MPICH \(libmpich\.so\.12\)$`, r.Stderr); n != 2 {
				t.Errorf("the reason is there %d times, want it of each node: %v", n, r)
			}
		})
		t.Run("nothing lent", func(t *testing.T) {
			s.With(t).MustRun(t.Context(), "n3", "root", "rm", "/etc/berth/conf.d/0.toml")
			r := s.as(t, "alice", "srun -w n3 --mpi=pmix -n2 --container-host-mpi --container-image="+mpi+" mpi-hello")
			check(t, r, 1, "^$", `this machine has none of the libraries in mpi\.host_libraries`)
		})
		s.clean(t)
	}, withImages("mpi", "mpich"), withMore(lentMPI))
}
