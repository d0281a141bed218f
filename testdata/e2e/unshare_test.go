package e2e

import (
	"regexp"
	"testing"
)

// TestUnshare gives steps namespaces of their own, one for all of a step's
// tasks on a node.
func TestUnshare(t *testing.T) {
	bothWays(t, func(t *testing.T, s *site) {
		const show = ` sh -c 'echo $(for ns in net ipc uts pid; do readlink /proc/self/ns/$ns; done)' | sort -u | wc -l`
		srun := "srun --container-image=" + tiny + " "
		for _, tc := range []struct {
			name, script string
			code         int
			want, says   string
		}{
			{name: "the node's", script: "a=$(srun -w n1 sh -c 'readlink /proc/self/ns/net'); b=$(" + srun + "-w n1 sh -c 'readlink /proc/self/ns/net'); test $a = $b && echo same", want: `^same\n$`},
			{name: "own", script: "a=$(srun -w n1 sh -c 'readlink /proc/self/ns/net'); b=$(" + srun + "-w n1 --container-unshare=net,ipc sh -c 'readlink /proc/self/ns/net'); test $a != $b && echo other", want: `^other\n$`},
			{name: "one for all tasks", script: srun + "-n4 -N1 --overcommit --container-unshare=net,ipc,uts" + show, want: `^1\n$`},
			{name: "loopback", script: srun + "--container-unshare=net --container-unshare=uts sh -c 'ip -o link | grep -c LOOPBACK,UP; ip -o link | wc -l'", want: `^1\n1\n$`},
			{name: "shared memory", script: srun + "--container-unshare=ipc sh -c 'ls -A /dev/shm; touch /dev/shm/x && echo own'", want: `^own\n$`},
			{name: "host name", script: srun + "--container-remap-root --container-unshare=uts sh -c 'hostname mine && hostname'; srun hostname", want: `^mine\nn\d\n$`},
			{
				name: "batch, and who joins", script: `id=$(sbatch --parsable -o /dev/null --container-unshare=net --container-image=` + tiny + ` --wrap 'sleep 100'); for i in $(seq 100); do berth exec --unshare net $id ip -o link 2>/dev/null && break; sleep 0.1; done | wc -l; berth exec --unshare ipc $id true; scancel $id`,
				want: `^1\n$`, says: `not in a separate IPC namespace`,
			},
			{name: "environment", script: "PYXIS_CONTAINER_UNSHARE=net " + srun + "sh -c 'ip -o link | wc -l'", want: `^1\n$`},
			{name: "pid", script: srun + "--container-unshare=pid true", code: 255, says: `pid namespace of its own; in the job, berth run`},
			{name: "unknown", script: srun + "--container-unshare=net,mnt true", code: 255, says: `"mnt" is none of net, ipc and uts`},
			{name: "PMIx", script: srun + "--mpi=pmix --container-unshare=net true", says: `MPI programs that start by PMIx will not work`},
		} {
			t.Run(tc.name, func(t *testing.T) {
				r := s.as(t, "alice", tc.script)
				if r.Code != tc.code || !regexp.MustCompile(tc.want).MatchString(r.Stdout) || !regexp.MustCompile(tc.says).MatchString(r.Stderr) {
					t.Errorf("want %d, %s, %s: %v", tc.code, tc.want, tc.says, r)
				}
			})
		}
		s.idle(t)
	})
}
