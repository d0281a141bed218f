package e2e

import (
	"strings"
	"testing"

	"github.com/berth-hpc/berth/testdata/images"
)

// TestInstall installs packages with accounts and owners of their own in jobs'
// containers, by apt, rpm and dnf. The node gives its users no further ids.
func TestInstall(t *testing.T) {
	owners, rpm := images.Repository(t, images.OwnerPackages()...), images.Repository(t, images.RPMPackages()...)
	bothWays(t, func(t *testing.T, s *site) {
		run := "srun -w n1 --container-writable --container-remap-root --container-image=" + registry + "/base:1 --container-mounts="
		script := run + owners + ":/repo:ro sh -c 'sh /repo/apt.sh " + strings.Join(images.OwnerPackages(), " ") +
			" >/tmp/log 2>&1 || { cat /tmp/log; exit 1; }; getent passwd postfix messagebus | cut -d: -f1; stat -c %u /var/spool/postfix/maildrop'"
		if r := s.as(t, "alice", script); r.Code != 0 || r.Stdout != "postfix\nmessagebus\n0\n" {
			t.Errorf("apt: %v", r)
		}
		script = run + rpm + ":/repo:ro sh -c 'sh /repo/apt.sh rpm dnf createrepo-c file >/dev/null 2>&1 && sh /repo/rpm.sh'"
		if r := s.as(t, "alice", script); r.Code != 0 || !strings.Contains(r.Stdout, "\nowners-1-1.noarch\ndata\n") {
			t.Errorf("rpm: %v", r)
		}
		s.idle(t)
	}, withImages("base"))
}
