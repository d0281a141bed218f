package e2e

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/berth-hpc/berth/testdata/cluster"
)

// names is the setting for a folder that prepareNames makes.
func names(scope string) option {
	return withContainer("names_dir = \"/var/scratch/%u/names\"\nnames_scope = \"" + scope + "\"")
}

func (s *site) prepareNames(t *testing.T) {
	t.Helper()
	for _, node := range []string{"n1", "n2"} {
		s.With(t).MustRun(t.Context(), node, "root", "sh", "-c", "mkdir -p /var/scratch && chmod 1777 /var/scratch")
	}
}

// expect runs a script and compares its exit code and what it printed.
func (s *site) expect(t *testing.T, user, script string, code int, stdout, stderr string) cluster.Result {
	t.Helper()
	r := s.as(t, user, script)
	if r.Code != code || !regexp.MustCompile(stdout).MatchString(r.Stdout) || !regexp.MustCompile(stderr).MatchString(r.Stderr) {
		t.Errorf("%s\nwant exit code %d, output %s, errors %s: %v", script, code, stdout, stderr, r)
	}
	return r
}

// TestNamedContainers is every mode of --container-name in steps of one job.
func TestNamedContainers(t *testing.T) {
	bothWays(t, func(t *testing.T, s *site) {
		s.prepareNames(t)
		image := " --container-image=" + tiny + " "
		job := func(script string) string {
			return "salloc -Q -w n1 -n3 --overcommit bash -c '" + strings.ReplaceAll(script, "'", `'\''`) + "'"
		}
		run := "srun --overlap -n1 --container-name="
		for _, tc := range []struct {
			name, script   string
			code           int
			stdout, stderr string
		}{
			{"kept between steps", run + "a" + image + "sh -c 'echo kept >/f; rm /etc/hostname.x /usr/bin/env 2>/dev/null; true'; " + run + "a cat /f", 0, `^kept\n$`, ``},
			{"its image is known", run + "a" + image + "sh -c 'echo $TINY_IMAGE'; " + run + "a sh -c 'echo $TINY_IMAGE'", 0, `^1\n1\n$`, ``},
			{"same image again", run + "a" + image + "touch /f; " + run + "a" + image + "ls /f", 0, `^/f\n$`, ``},
			{"another image", run + "a" + image + "touch /f; " + run + "a --container-image=other:1 ls /f", 1, `^$`, `made from \S+tiny:1, not from other:1`},
			{"no such container", run + "none true", 1, ``, `no such container on this node, and no --container-image`},
			{"create", run + "a:create" + image + "echo made", 0, `^made\n$`, ``},
			{"create what there is", run + "a" + image + "true; " + run + "a:create" + image + "true", 1, ``, `a exists already`},
			{"create after a failure", run + "a:create --container-mounts=/nosuch:/x" + image + "true; " + run + "a:create" + image + "echo made", 0, `^made\n$`, `nosuch`},
			{"exec what does not run", run + "a" + image + "true; " + run + "a:exec true", 1, ``, `a does not run in this job on n1`},
			{"read-only", run + "a" + image + "touch /f; " + run + "a --container-readonly sh -c 'ls /f; touch /g'", 1, `^/f\n$`, `Read-only file system`},
			{"bad mode", run + "a:often" + image + "true", 255, ``, `auto, create, exec or no_exec`},
			{"bad name", run + "../a" + image + "true", 255, ``, `use letters, digits`},
			{
				"join", run + "a --container-mounts=/usr:/shown" + image + "sh -c 'readlink /proc/self/ns/mnt; echo $SLURM_STEP_ID >/up; while [ ! -e /down ]; do sleep 0.1; done' & " +
					"until " + run + "a:exec sh -c 'ls /up; readlink /proc/self/ns/mnt; pwd'; do sleep 0.2; done; " +
					run + "a --container-mounts=/etc:/etc2 --container-workdir=/shown sh -c 'ls -d /etc2; pwd'; " +
					run + "a:no_exec true; " + run + "a:create" + image + "true; " + run + "a --container-unshare=ipc true; " +
					run + "$SLURM_JOB_ID.$(" + run + "a cat /up) sh -c 'touch /down; echo joined'; wait", 0, `(?s)(mnt:\S+)\n/up\n(mnt:\S+)\n/\n/shown\njoined`,
				`(?s)ignoring --container-mounts.*in use by this job.*a exists already.*not in a separate IPC namespace`,
			},
			{"two at once", "for i in 1 2 3 4; do " + run + "a" + image + "sh -c 'echo '$i' >>/all; sleep 1' & done; wait; " + run + "a sh -c 'sort /all'", 0, `^1\n2\n3\n4\n$`, ``},
			{"root in appearance", run + "a --container-remap-root" + image + "sh -c 'id -u; echo x >/f; sleep 4' & sleep 2; " + run + "a sh -c 'id -u; stat -c %u /f'; wait", 0, `^0\n0\n0\n$`, ``},
		} {
			t.Run(tc.name, func(t *testing.T) {
				r := s.expect(t, "alice", job(tc.script), tc.code, tc.stdout, tc.stderr)
				if m := regexp.MustCompile(`mnt:\S+`).FindAllString(r.Stdout, -1); len(m) == 2 && m[0] != m[1] {
					t.Errorf("not the same container: %v", r)
				}
			})
		}
		t.Run("gone with the job", func(t *testing.T) {
			until(t, 30*time.Second, "jobs' containers are removed", func() bool {
				return s.With(t).Run(t.Context(), "n1", "root", "sh", "-c", "ls /var/scratch/alice/names | grep .").Code != 0
			})
		})
		s.idle(t)
	}, names("job"))
}

// TestGlobalNames: a container outlives its job, on its node, for its user.
func TestGlobalNames(t *testing.T) {
	bothWays(t, func(t *testing.T, s *site) {
		s.prepareNames(t)
		image := " --container-image=" + tiny + " "
		run := func(node, name string) string { return "srun -n1 -w " + node + " --container-name=" + name }
		s.expect(t, "alice", run("n1", "g")+image+"sh -c 'echo one >/f'", 0, ``, ``)
		s.expect(t, "alice", run("n1", "g")+" cat /f", 0, `^one\n$`, ``)
		s.expect(t, "alice", run("n2", "g")+" cat /f", 1, ``, `no such container on this node`)
		s.expect(t, "bob", run("n1", "g")+" cat /f", 1, ``, `no such container on this node`)
		s.expect(t, "bob", run("n1", "g")+image+"sh -c 'echo two >/f'", 0, ``, ``)
		s.expect(t, "alice", run("n1", "g")+" cat /f", 0, `^one\n$`, ``)
		s.expect(t, "bob", "srun -n1 -w n1 ls /var/scratch/alice/names", 2, ``, ``)
		id := s.inside(t, "-w n1 --container-name=g")
		s.expect(t, "alice", run("n1", "g")+" true", 1, ``, `in use by job `+id+` on this node`)
		s.With(t).MustRun(t.Context(), "ctl", "root", "scancel", id)
		s.With(t).WaitIdle()
		s.expect(t, "alice", run("n1", "g")+" cat /f", 0, `^one\n$`, ``)
		s.expect(t, "alice", "srun -n1 -w n1 berth containers", 0, `(?m)^g +\S+tiny:1 `, ``)
		s.expect(t, "alice", "srun -n1 -w n1 berth save g /shared/saved.sqsh && srun -n1 -w n2 --container-image=/shared/saved.sqsh cat /f", 0, `^one\n$`, ``)
		s.expect(t, "alice", "srun -n1 -w n1 berth push g 10.97.0.1:5000/saved:1 && srun -n1 -w n2 --container-image=10.97.0.1:5000/saved:1 cat /f", 0, `one\n$`, ``)
		s.expect(t, "alice", "srun -n1 -w n1 berth containers rm g", 0, ``, ``)
		s.expect(t, "alice", run("n1", "g")+" cat /f", 1, ``, `no such container on this node`)
		t.Run("quota", func(t *testing.T) {
			s.expect(t, "alice", run("n1", "big")+image+"dd if=/dev/zero of=/big bs=1M count=30", 0, ``, ``)
			s.expect(t, "alice", run("n1", "more")+image+"true", 1, ``, `take \d+ MB, and 20 MB are allowed`)
			s.expect(t, "alice", "srun -n1 -w n1 berth containers rm big", 0, ``, ``)
		})
		t.Run("expiry", func(t *testing.T) {
			s.expect(t, "alice", run("n1", "old")+image+"true", 0, ``, ``)
			s.expect(t, "alice", "srun -w n1 touch -d '8 days ago' /var/scratch/alice/names/containers/old/lock", 0, ``, ``)
			s.expect(t, "alice", run("n1", "new")+image+"true", 0, ``, ``)
			s.expect(t, "alice", "srun -w n1 ls /var/scratch/alice/names/containers", 0, `^new\n$`, ``)
		})
		t.Run("somebody else's folder", func(t *testing.T) {
			s.With(t).MustRun(t.Context(), "n1", "root", "sh", "-c", "mkdir -p /var/scratch/carol/names && chmod -R 777 /var/scratch/carol && chown -R bob /var/scratch/carol")
			s.expect(t, "carol", run("n1", "g")+image+"true", 1, ``, `not a folder that is the user's alone`)
		})
		s.idle(t)
	}, names("global"), withContainer(fmt.Sprintf("names_expiry = %q\nnames_quota = %q", "168h", "20MB")))
}
