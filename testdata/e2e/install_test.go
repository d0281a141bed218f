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

// TestSubIDs is the same with further ids that the node's administrator gives
// alice, and not bob.
func TestSubIDs(t *testing.T) {
	owners := images.Repository(t, images.OwnerPackages()...)
	bothWays(t, func(t *testing.T, s *site) {
		s.MustRun(t.Context(), "n1", "root", "sh", "-c",
			"for f in subuid subgid; do printf 'alice:500000:65536\\n' >/etc/$f; chmod 644 /etc/$f; done; mkdir -p /var/scratch; chmod 1777 /var/scratch")
		run := "srun -w n1 --container-writable --container-remap-root --container-image=" + registry + "/base:1 "
		r := s.as(t, "alice", run+"--container-mounts="+owners+":/repo:ro sh -c 'sh /repo/apt.sh "+strings.Join(images.OwnerPackages(), " ")+
			" >/tmp/log 2>&1 || { cat /tmp/log; exit 1; }; stat -c %U /var/lib/postfix; touch ~/x 2>/dev/null || echo ro; id -Gn'")
		if r.Code != 0 || r.Stdout != "postfix\nro\nroot project biology\n" {
			t.Errorf("alice: %v", r)
		}
		r = s.as(t, "bob", run+"sh -c 'touch /x && chown daemon /x && stat -c %U /x; grep -c . /proc/self/uid_map; touch ~/x && echo rw'")
		if r.Code != 0 || r.Stdout != "root\n1\nrw\n" {
			t.Errorf("bob has none: %v", r)
		}
		r = s.as(t, "alice", run+"--container-mounts=/home/alice:/in true")
		if r.Code == 0 || !strings.Contains(r.Stderr, "further ids") {
			t.Errorf("a writable mount: %v", r)
		}
		gone := "timeout 100 sh -c 'until [ -z \"$(ls -A /var/scratch)\" ]; do sleep 0.1; done' || { ls -lRA /var/scratch | head -n 20; exit 1; }"
		if r := s.Run(t.Context(), "n1", "root", "sh", "-c", gone); r.Code != 0 {
			t.Errorf("files of further ids stay: %v", r)
		}
		s.MustRun(t.Context(), "n1", "root", "chmod", "666", "/etc/subuid")
		if r := s.as(t, "alice", run+"true"); r.Code == 0 || !strings.Contains(r.Stderr, "/etc/subuid") {
			t.Errorf("a file that everybody may write: %v", r)
		}
		s.idle(t)
	}, withImages("base"), withContainer("sub_ids = true\nchanges = \"scratch\"\nscratch = \"/var/scratch\""))
}
