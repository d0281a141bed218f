package e2e

import (
	"strings"
	"testing"

	"github.com/berth-hpc/berth/testdata/images"
)

// TestIdentity compares who a user is on a node with who they are in a
// container: ids, names, groups, home, shell, and whose the files are.
func TestIdentity(t *testing.T) {
	base := registry + "/base:1"
	layout := "oci:" + images.Layout(t, "base")
	bothWays(t, func(t *testing.T, s *site) {
		const who = `sh -c 'id; id -Gn; getent passwd alice; getent passwd $(id -u); getent group project 3002 alice | cut -d: -f1-3; ` +
			`echo $HOME $USER $(whoami) ~alice; umask; touch ~/mine && stat -c "%u:%g %U:%G" ~/mine; ` +
			`touch ~/shared && chgrp project ~/shared && stat -c %G ~/shared'`
		bare := s.as(t, "alice", "srun -w n1 "+who)
		if bare.Code != 0 || !strings.Contains(bare.Stdout, "3001(project)") || !strings.Contains(bare.Stdout, ":/bin/bash\n") {
			t.Fatalf("the node itself: %v", bare)
		}
		for name, options := range map[string]string{"read-only": "", "writable": "--container-writable "} {
			in := s.as(t, "alice", "srun -w n1 --container-image="+base+" "+options+who)
			if in.Code != bare.Code || in.Stdout != bare.Stdout {
				t.Errorf("%s:\nbare: %v\nin a container: %v", name, bare, in)
			}
		}
		// By hand the kernel maps the primary group alone.
		byHand := s.as(t, "alice", "srun -w n1 /opt/berth/bin/berth run "+layout+" sh -c 'id; getent passwd 2001'")
		if byHand.Stdout != "uid=2001(alice) gid=2001(alice) groups=2001(alice),65534(nogroup)\nalice:x:2001:2001:Alice:/home/alice:/bin/bash\n" {
			t.Errorf("by hand: %v", byHand)
		}
		remapped := s.as(t, "alice", "srun -w n1 --container-remap-root --container-image="+base+
			` sh -c 'id; touch ~/root && stat -c %u:%g ~/root' && stat -c %u:%g ~/root`)
		if remapped.Stdout != "uid=0(root) gid=0(root) groups=0(root),3001(project),3002(biology)\n0:0\n2001:2001\n" {
			t.Errorf("root in appearance: %v", remapped)
		}
		// Busybox, musl and the like read the files alone.
		if r := s.as(t, "bob", "srun -w n1 --container-image="+tiny+" id"); !strings.HasPrefix(r.Stdout, "uid=2002(bob) gid=2002(bob) groups=2002(bob),3001(project)") {
			t.Errorf("without name services: %v", r)
		}
		s.idle(t)
	}, withImages("base"))
}
