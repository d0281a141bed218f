package e2e

import (
	"context"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/berth-hpc/berth/testdata/cluster"
)

// mountSite is what an admin might set. hung is where nothing answers.
const mountSite = `[container]
user_mounts_deny = ["/data/secret", "/var/lib"]
user_mounts_readonly = ["/data/db"]
mount_timeout = "2s"
mounts = ["/shared", "/data/softs:/softs:ro", "/data/missing", "/data/scratch/%u:/scratch", "/data/jobs/%j-%H:/job", "/data/auto:/auto:ro"]
`

// makeData is run by root on a node.
const makeData = `set -e
mkdir -p /data/secret /data/db /data/softs /data/scratch/alice /data/auto /data/hung
echo secret >/data/secret/s; echo db >/data/db/d; echo softs >/data/softs/x; echo mine >/data/scratch/alice/m
echo shadow >/data/softs/closed; chmod 600 /data/softs/closed
ln -s ../secret/s /data/db/link; ln -s secret /data/way; chmod 777 /data/db
mount --bind /data/auto /data/auto; mount --make-shared /data/auto; mkdir -p /data/auto/late`

// TestMounts is what the admin and users mount, by Slurm and by hand.
func TestMounts(t *testing.T) {
	bothWays(t, func(t *testing.T, s *site) {
		s.With(t).MustRun(t.Context(), "n1", "root", "sh", "-c", makeData)
		const no = "does not let users mount"
		for _, tc := range []struct {
			name, dir, mounts, script string
			code                      int
			want, says                string // regular expressions: all of stdout, a part of stderr
		}{
			{name: "the admin's", script: "cat /softs/x /scratch/m; ls /data /job; touch /softs/n", code: 1, want: `^softs\nmine\n$`, says: "Read-only file system"},
			{name: "the user's", mounts: "/data/softs:/a b,/data/scratch/alice:/deep/er:ro", script: `cat "/a b/x" /deep/er/m`, want: `^softs\nmine\n$`},
			{name: "short", mounts: "/data/scratch/alice", script: "cat /data/scratch/alice/m", want: `^mine\n$`},
			{name: "unreadable", mounts: "/data/softs/closed:/c", script: "cat /c", code: 1, want: `^$`, says: "Permission denied"},
			{name: "denied", mounts: "/data/secret:/x", script: "cat /x/s", code: 1, want: `^$`, says: no},
			{name: "denied, by a link", mounts: "/data/way:/x", script: "cat /x/s", code: 1, want: `^$`, says: `/data/way \(it is /data/secret\): the site ` + no},
			{name: "denied, from above", mounts: "/data:/x", script: "cat /x/secret/s", code: 1, want: `^$`, says: no},
			{name: "denied, the root", mounts: "/:/x", script: "cat /x/data/secret/s", code: 1, want: `^$`, says: no},
			{name: "denied, by proc", mounts: "/proc/self/root/data/secret:/x", script: "cat /x/s", code: 1, want: `^$`, says: no},
			{name: "a link inside", mounts: "/data/db:/x", script: "cat /x/d /x/link", code: 1, want: `^db\n$`, says: "No such file"},
			{name: "read-only", mounts: "/data/db:/x:rw", script: "touch /x/n", code: 1, want: `^$`, says: "Read-only file system"},
			{name: "denied folder of the job", dir: "/data/secret", script: "cat /data/secret/s", code: 1, want: `^$`, says: "No such file"},
			{name: "missing", mounts: "/data/none:/x", script: "true", code: 1, want: `^$`, says: "source path does not exist: /data/none"},
			{name: "umount", mounts: "umount:/softs", script: "ls /softs", code: 1, want: `^$`, says: "No such file"},
			{name: "tmpfs", mounts: "tmpfs:/fast:size=1m", script: `touch /fast/x && grep -c " /fast tmpfs .*size=1024k" /proc/mounts`, want: `^1\n$`},
		} {
			t.Run(tc.name, func(t *testing.T) {
				for how, r := range s.bothRuns(t, tc.dir, tc.mounts, tc.script) {
					code := tc.code
					if how == "by hand" && strings.Contains(r.Stderr, "berth: error:") {
						code *= 64 // a user's mistake
					}
					if r.Code != code || !regexp.MustCompile(tc.want).MatchString(r.Stdout) || !regexp.MustCompile(tc.says).MatchString(r.Stderr) {
						t.Errorf("%s: want exit code %d, stdout %s, stderr %s: %v", how, tc.code, tc.want, tc.says, r)
					}
				}
			})
		}
		t.Run("of the job", func(t *testing.T) {
			s.With(t).MustRun(t.Context(), "n1", "root", "sh", "-c", "for j in 1 2 3 4 5 6 7 8 9; do for k in '' 0 1 2 3 4 5 6 7 8 9; do mkdir -p /data/jobs/$j$k-n1; done; done")
			r := s.as(t, "alice", "srun -w n1 --container-image="+tiny+" sh -c 'grep -c \"/data/jobs/$SLURM_JOB_ID-n1 /job \" /proc/self/mountinfo'")
			if r.Code != 0 || r.Stdout != "1\n" {
				t.Error(r)
			}
		})
		t.Run("late", func(t *testing.T) { s.lateMounts(t) })
		t.Run("hung", func(t *testing.T) { s.hungMounts(t) })
		s.idle(t)
	}, withMore(mountSite))
}

// withMore adds a file of settings to the site's.
func withMore(toml string) option {
	return func(s *setup) { s.More = append(s.More, toml) }
}

// bothRuns runs a script on n1 in a step's container, and in one of berth
// run.
func (s *site) bothRuns(t *testing.T, dir, mounts, script string) map[string]cluster.Result {
	t.Helper()
	srun, run := "srun -w n1 --container-image="+tiny, "/opt/berth/bin/berth run "
	if mounts != "" {
		srun += " --container-mounts='" + mounts + "'"
		run += " --mount '" + mounts + "' "
	}
	if dir != "" {
		srun += " --chdir=" + dir
		run = "cd " + dir + " && " + run
	}
	return map[string]cluster.Result{
		"srun":    s.as(t, "alice", srun+" sh -c '"+script+"'"),
		"by hand": s.With(t).Run(t.Context(), "n1", "alice", "bash", "-c", run+tiny+" sh -c '"+script+"'"),
	}
}

// lateMounts mounts below /data/auto on the node while containers run.
func (s *site) lateMounts(t *testing.T) {
	const script = "touch /shared/$0.ready; until [ -e /auto/late/f ]; do sleep 0.1; done; cat /auto/late/f"
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	s.With(t).MustRun(ctx, "ctl", "root", "sh", "-c", "rm -f /shared/*.ready")
	results := make(chan cluster.Result, 2)
	go func() {
		results <- s.Run(ctx, "ctl", "alice", "srun", "-w", "n1", "--container-image="+tiny, "sh", "-c", script, "managed")
	}()
	go func() {
		results <- s.Run(ctx, "n1", "alice", "/opt/berth/bin/berth", "run", tiny, "sh", "-c", script, "hand")
	}()
	until(t, 30*time.Second, "both containers run", func() bool {
		return s.With(t).Run(ctx, "ctl", "root", "ls", "/shared/managed.ready", "/shared/hand.ready").Code == 0
	})
	s.With(t).MustRun(ctx, "n1", "root", "sh", "-c", "mount -t tmpfs late /data/auto/late && echo came later >/data/auto/late/f")
	for range 2 {
		if r := <-results; r.Code != 0 || r.Stdout != "came later\n" {
			t.Error(r)
		}
	}
	s.With(t).MustRun(ctx, "n1", "root", "umount", "/data/auto/late")
}

// hang mounts at a folder a file system that never answers, until it is killed.
const hang = `exec 3<>/dev/fuse && mount -i -t fuse -o fd=3,rootmode=40000,user_id=0,group_id=0,allow_other silent /data/hung && echo $$ >/run/hung && exec sleep 300`

// hungFolder makes /data/hung on n1 a folder that never answers.
func (s *site) hungFolder(t *testing.T) {
	t.Helper()
	s.Spawn("hung", cluster.Command{Machine: "n1", Args: []string{"bash", "-c", hang}})
	until(t, 10*time.Second, "it hangs", func() bool { return s.With(t).Run(t.Context(), "n1", "root", "test", "-e", "/run/hung").Code == 0 })
	t.Cleanup(func() {
		s.Run(context.Background(), "n1", "root", "sh", "-c", "kill $(cat /run/hung); rm /run/hung; umount -l /data/hung")
	})
}

// hungMounts asks for a folder that never answers.
func (s *site) hungMounts(t *testing.T) {
	s.hungFolder(t)
	begin := time.Now()
	for how, r := range s.bothRuns(t, "", "/data/hung/x:/x", "true") {
		if !strings.Contains(r.Stderr, "source path /data/hung/x: it did not answer within 2s") {
			t.Errorf("%s: %v", how, r)
		}
	}
	if d := time.Since(begin); d > 30*time.Second {
		t.Errorf("took %v", d)
	}
}
