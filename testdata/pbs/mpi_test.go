package main

import (
	"regexp"
	"strings"
	"testing"

	"github.com/berth-hpc/berth/testdata/cluster"
)

// TestOpenMPI runs the image's own mpirun, which starts its daemons by
// pbs_tmrsh, on two nodes: with the whole job in the container, and with a
// script outside whose ranks join it. The ranks of a node read each other's
// memory, for which they must share a user namespace.
func TestOpenMPI(t *testing.T) {
	bothWays(t, func(t *testing.T, s *site) {
		const options = "--mca plm_rsh_agent pbs_tmrsh --mca btl_tcp_if_include eth0 --mca oob_tcp_if_include eth0 --oversubscribe -host n1:2,n2:2 -np 4 "
		s.checkRanks(t, script("-l select=2 -l container_image="+mpi, "mpirun "+options+"mpi-hello"))
		t.Run("ranks", func(t *testing.T) {
			// The host's mpirun, with the image's ranks.
			outside := strings.ReplaceAll(options, "pbs_tmrsh", "/opt/pbs/bin/pbs_tmrsh")
			s.checkRanks(t, script("-l select=2 -l container_mode=ranks -l container_image="+mpi,
				"mpirun "+outside+"/opt/berth/bin/berth exec -- mpi-hello"))
		})
		s.clean(t)
	}, "mpi")
}

// checkRanks starts the ranks again when one crashed: Debian's Open MPI 4.1.4
// does so in about one of fifty starts over several nodes, without a container
// too.
func (s *site) checkRanks(t *testing.T, submit string) {
	t.Helper()
	var r cluster.Result
	for range 3 {
		if r = s.as(t, "alice", submit); !strings.Contains(r.Stdout, "Segmentation fault") {
			break
		}
		t.Logf("again: %v", r)
	}
	ranks := regexp.MustCompile(`(?m)^rank=(\d) size=4 host=n[12] local=[01]/2 cma=yes`).FindAllStringSubmatch(r.Stdout, -1)
	if r.Code != 0 || len(ranks) != 4 {
		t.Errorf("%v", r)
	}
}
