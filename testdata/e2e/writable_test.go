package e2e

import (
	"strings"
	"testing"
)

// TestWritableRoot: what is changed in a container is bounded by the job's
// memory, or on the node's disk and gone with the container.
func TestWritableRoot(t *testing.T) {
	t.Run("memory", func(t *testing.T) {
		bothWays(t, func(t *testing.T, s *site) {
			run := "srun -w n1 --mem=64 --container-writable --container-image=" + tiny
			if r := s.as(t, "alice", run+" sh -c 'df -k / | tail -n1'"); !strings.Contains(r.Stdout, " 32768 ") {
				t.Errorf("not half of the job's memory: %v", r)
			}
			r := s.as(t, "alice", run+" dd if=/dev/zero of=/big bs=1M count=40")
			if r.Code == 0 || !strings.Contains(r.Stderr, "No space left on device") {
				t.Errorf("more than that: %v", r)
			}
			s.idle(t)
		}, withConf("SelectTypeParameters=CR_Core_Memory", "DefMemPerNode=1000"))
	})
	t.Run("scratch", func(t *testing.T) {
		bothWays(t, func(t *testing.T, s *site) {
			s.MustRun(t.Context(), "n1", "root", "sh", "-c", "mkdir -p /var/scratch && chmod 1777 /var/scratch")
			r := s.as(t, "alice", "srun -w n1 -n2 --overcommit --container-writable --container-remap-root --container-image="+tiny+
				" sh -c 'rm -rf /etc/ssl; mkdir -p /etc/ssl; echo $SLURM_PROCID >/made.$SLURM_PROCID; sync; chmod 0 /etc/ssl'")
			if r.Code != 0 {
				t.Errorf("%v", r)
			}
			in := s.as(t, "alice", "srun -w n1 --container-writable --container-mounts=/var/scratch:/look:ro --container-image="+tiny+
				" sh -c 'touch /made; ls /look/alice/.berth-*/upper/made; stat -c %U /look/alice/.berth-*'")
			if in.Code != 0 || !strings.Contains(in.Stdout, "/upper/made\nalice\n") {
				t.Errorf("not on the disk: %v", in)
			}
			gone := "timeout 100 sh -c 'until [ -z \"$(ls -A /var/scratch/alice)\" ]; do sleep 0.1; done'"
			if r := s.Run(t.Context(), "n1", "root", "sh", "-c", gone); r.Code != 0 {
				left := s.Run(t.Context(), "n1", "root", "sh", "-c", "ls -lA /var/scratch/alice; ps -ef | grep janitor")
				t.Errorf("still there after the job: %v", left)
			}
			s.idle(t)
		}, withContainer("changes = \"scratch\"\nscratch = \"/var/scratch/%u\""))
	})
}
