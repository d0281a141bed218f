package e2e

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/berth-hpc/berth/testdata/cluster"
)

// makeBundle leaves a bundle of alice's in /shared/bundle.
const makeBundle = `set -e
mkdir -p /shared/bundle/rootfs/bin /shared/bundle/rootfs/tmp
for n in sh id cat sleep test touch ls; do cp /usr/bin/busybox /shared/bundle/rootfs/bin/$n; done
touch /shared/bundle/rootfs/inside
cat >/shared/bundle/config.json <<END
{"ociVersion": "1.0.2", "root": {"path": "rootfs", "readonly": true},
 "process": {"terminal": true, "user": {"uid": UID, "gid": UID}, "cwd": "/", "args": ["sh"], "env": ["PATH=/bin", "OF=bundle"]},
 "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}]}
END
`

// TestSlurmsContainers runs bundles by Slurm's own --container, with the
// oci.conf of the documentation.
func TestSlurmsContainers(t *testing.T) {
	bothWays(t, func(t *testing.T, s *site) {
		conf, err := os.ReadFile("../../docs/oci.conf")
		if err != nil {
			t.Fatal(err)
		}
		appendTo(t, filepath.Join(s.Dir, "slurm", "oci.conf"), string(conf))
		for _, node := range []string{"n1", "n2", "n3"} {
			s.MustRun(t.Context(), node, "root", "install", "-d", "-m", "1777", "/run/berth-oci")
		}
		s.MustRun(t.Context(), "ctl", "root", "install", "-d", "-o", "alice", "/shared/bundle")
		uid := regexp.MustCompile("UID").ReplaceAllString(makeBundle, "2001")
		s.MustRun(t.Context(), "ctl", "alice", "sh", "-c", uid)
		for _, tc := range []struct {
			name, script string
			code         int
			want         string
		}{
			{"step", `srun --container=/shared/bundle sh -c 'id -u; ls /inside; echo $OF ${SLURM_JOB_ID:+slurm}'`, 0, `^2001\n/inside\nbundle slurm\n$`},
			{"exit code", "srun --container=/shared/bundle sh -c 'exit 5'", 5, `^$`},
			{"input", "echo hello | srun --container=/shared/bundle cat", 0, `^hello\n$`},
			{"read-only", "srun --container=/shared/bundle touch /x", 1, `^$`},
			{"arguments", "srun --container=/shared/bundle sh -c 'echo \"$1|$2\"' x 'a  b' \"it's\"", 0, `^a  b\|it's\n$`},
			{"killed", "srun --container=/shared/bundle sh -c 'kill -9 $$'", 137, `^$`},
			{"in a job", "salloc -N2 srun -N1 -n1 --container=/shared/bundle ls /inside 2>/dev/null", 0, `^/inside\n$`},
			{"no bundle", "srun --container=/shared/nowhere true", -1, `^$`},
			{"bare", "srun test -e /etc/slurm", 0, `^$`},
		} {
			t.Run(tc.name, func(t *testing.T) {
				r := s.as(t, "alice", tc.script)
				if r.Code != tc.code && tc.code >= 0 || tc.code < 0 && r.Code == 0 || !regexp.MustCompile(tc.want).MatchString(r.Stdout) {
					t.Errorf("want exit code %d, %s: %v", tc.code, tc.want, r)
				}
			})
		}
		t.Run("cancelled", func(t *testing.T) {
			id := s.submit(t, "-o /dev/null --wrap 'srun --container=/shared/bundle sleep 1000'")
			until(t, 30*time.Second, "the task runs", func() bool { return s.anywhere(t, "pgrep -u alice -x sleep") })
			s.MustRun(t.Context(), "ctl", "alice", "scancel", id)
			until(t, 30*time.Second, "the task ends", func() bool { return !s.anywhere(t, "pgrep -u alice -x sleep") })
		})
		t.Run("a forged state", func(t *testing.T) { s.forgedState(t) })
		s.idle(t)
		// A state of a task that was killed before Slurm asked is forgotten by whoever looks next.
		until(t, 20*time.Second, "nothing is left", func() bool {
			return !s.anywhere(t, "berth oci --user alice list | grep .")
		})
	})
}

// forgedState has root kill, as Slurm does at the end of a step, a container
// whose state alice wrote: it names a process of bob's.
func (s *site) forgedState(t *testing.T) {
	s.Spawn("victim", cluster.Command{Machine: "n1", User: "bob", Args: []string{"sleep", "1001"}})
	defer s.Stop("victim")
	victim := ""
	until(t, 20*time.Second, "bob's process runs", func() bool {
		victim = strings.TrimSpace(s.With(t).Run(t.Context(), "n1", "root", "pgrep", "-u", "bob", "-x", "sleep").Stdout)
		return victim != ""
	})
	s.MustRun(t.Context(), "n1", "alice", "sh", "-c", `set -e
		mkdir -m 700 -p /run/berth-oci/2001/forged
		echo "{\"id\":\"forged\",\"pid\":`+victim+`,\"start\":$(cut -d' ' -f22 /proc/`+victim+`/stat)}" >/run/berth-oci/2001/forged/state.json`)
	berth := func(args string) cluster.Result {
		return s.With(t).Run(t.Context(), "n1", "root", "sh", "-c", "berth oci --user alice "+args)
	}
	if r := berth("state forged"); !strings.Contains(r.Stdout, "running") {
		t.Errorf("the state is not believed, so this tests nothing: %v", r)
	}
	if r := berth("kill --all forged KILL"); r.Code == 0 || !strings.Contains(r.Stderr, "operation not permitted") {
		t.Errorf("root killed for alice: %v", r)
	}
	berth("delete --force forged")
	if s.With(t).Run(t.Context(), "n1", "root", "test", "-d", "/proc/"+victim).Code != 0 {
		t.Error("bob's process is gone")
	}
	if r := s.With(t).Run(t.Context(), "n1", "root", "berth", "oci", "--root", "/run/berth-oci/2001", "list"); r.Code == 0 {
		t.Errorf("root reads alice's states as root: %v", r)
	}
}

// anywhere says whether a script succeeds on one of the nodes, as root.
func (s *site) anywhere(t *testing.T, script string) bool {
	t.Helper()
	for _, node := range []string{"n1", "n2", "n3"} {
		if s.With(t).Run(t.Context(), node, "root", "sh", "-c", script).Code == 0 {
			return true
		}
	}
	return false
}
