package e2e

import (
	"regexp"
	"strings"
	"testing"
)

// TestJobs is what users type, in every shape of job.
func TestJobs(t *testing.T) {
	bothWays(t, func(t *testing.T, s *site) {
		s.fileImage(t)
		for _, tc := range []struct {
			name, script string
			code         int
			want         string // regular expression over the whole of stdout
			says         string // and one that stderr must match
		}{
			{
				name: "srun", script: "srun --container-image=" + tiny + " sh -c 'id; head -n1 /etc/os-release'",
				want: `^uid=2001\(alice\) gid=2001\(alice\) groups=.*2001\(alice\).*\nID=tiny`,
			},
			{name: "exit code", script: "srun --container-image=" + tiny + " sh -c 'exit 7'", code: 7, want: `^$`},
			{
				name: "every node, several tasks", script: "srun -N3 --ntasks-per-node=2 --container-image=" + tiny + ` sh -c 'echo $SLURM_PROCID $SLURMD_NODENAME' | sort -n`,
				want: `^0 n1\n1 n1\n2 n2\n3 n2\n4 n3\n5 n3\n$`,
			},
			{
				name: "batch", script: `printf '#!/bin/sh\ntest -e /bin/busybox && echo inside; pwd; echo $SUBMITTED' >job.sh
				SUBMITTED=yes sbatch -W -o /shared/batch.out --container-image=` + tiny + ` job.sh >/dev/null && cat /shared/batch.out`,
				want: `^inside\n/\nyes\n$`,
			},
			{
				name: "batch without environment", script: `printf '#!/bin/sh\ntest -e /bin/busybox && echo inside $SUBMITTED' >job.sh
				SUBMITTED=yes sbatch -W --export=NONE -o /shared/none.out --container-image=` + tiny + ` job.sh >/dev/null && cat /shared/none.out`,
				want: `^inside\n$`,
			},
			{name: "failed batch", script: `printf '#!/bin/sh\nexit 3' >job.sh
				sbatch -W -o /dev/null --container-image=` + tiny + ` job.sh >/dev/null`, code: 3, want: `^$`},
			{
				name: "array", script: `printf '#!/bin/sh\necho $SLURM_ARRAY_TASK_ID' >job.sh
				sbatch -W --array=1-3 -o /shared/array.%a --container-image=` + tiny + ` job.sh >/dev/null && cat /shared/array.*`,
				want: `^1\n2\n3\n$`,
			},
			{
				name: "salloc", script: "salloc -N2 --container-image=" + tiny + " srun -n2 sh -c 'test -e /bin/busybox && echo in' 2>/dev/null",
				want: `^in\nin\n$`,
			},
			{
				name: "image of the step", script: "salloc -N2 srun -n2 --container-image=" + tiny + " sh -c 'test -e /bin/busybox && echo in' 2>/dev/null",
				want: `^in\nin\n$`,
			},
			{name: "no container", script: "srun sh -c 'test -e /etc/slurm && echo host'", want: `^host\n$`},
			{
				name: "options without an image", script: "srun --container-workdir=/ sh -c 'test -e /etc/slurm && echo host'",
				want: `^host\n$`, says: `container-workdir|container-image`,
			},
			{name: "home", script: "echo mine >note; srun --container-image=" + tiny + " sh -c 'cat ~/note'", want: `^mine\n$`},
			{name: "no home", script: "srun --no-container-mount-home --container-image=" + tiny + " sh -c 'test -e /home/alice/note || echo hidden'", want: `^hidden\n$`},
			{
				name: "file", script: "cd /shared; srun -N2 --container-image=./x.sqsh sh -c 'test -e /bin/busybox && echo in; touch /bin/x 2>/dev/null || echo ro'",
				want: `^(in|ro)\n(in|ro)\n(in|ro)\n(in|ro)\n$`,
			},
			{
				name: "writable file", script: "srun --container-writable --container-image=/shared/x.sqsh sh -c 'echo more >>/etc/os-release && tail -n1 /etc/os-release'",
				want: `^more\n$`,
			},
			{
				name: "file without the dot", script: "cd /shared; srun --container-image=x.sqsh true", code: 255, want: `^$`, says: `did you mean \./x\.sqsh`,
			},
			{
				name: "job's folder", script: "mkdir -p proj; cd proj; echo p >f; srun --no-container-mount-home --container-image=" + tiny + " sh -c 'cat /home/alice/proj/f; ls /home/alice'",
				want: `^p\nproj\n$`,
			},
			{
				name: "root in appearance", script: "srun --container-remap-root --container-writable --container-image=" + tiny + " sh -c 'id -u; touch /bin/x && stat -c %u /bin/x; touch /etc/slurm/x 2>/dev/null || echo no'",
				want: `^0\n0\nno\n$`,
			},
			{
				name: "mounts", script: "mkdir -p data; echo d >data/f; srun --container-image=" + tiny +
					" --container-mounts=$PWD/data:/in:ro,tmpfs:/scratch --container-mounts=/etc/slurm:/conf sh -c 'cat /in/f; touch /in/x 2>/dev/null || echo ro; touch /scratch/x && echo scratch; ls /conf/slurm.conf'",
				want: `^d\nro\nscratch\n/conf/slurm.conf\n$`,
			},
			{name: "workdir", script: "srun --container-workdir=/tmp --container-image=" + tiny + " pwd", want: `^/tmp\n$`},
			{name: "read-only by default", script: "srun --container-image=" + tiny + " touch /bin/x", code: 1, want: `^$`, says: `Read-only file system`},
			{name: "writable", script: "srun --container-writable --container-image=" + tiny + " sh -c 'echo x >/bin/x && rm /bin/ls && cat /bin/x && mkdir /etc/new'", want: `^x\n$`},
			{name: "writable and read-only", script: "srun --container-writable --container-readonly --container-image=" + tiny + " true", code: 255, want: `^$`, says: `container-readonly|container-writable`},
			{name: "image variables win", script: "PATH=$PATH:/nowhere srun --container-image=" + tiny + " sh -c 'echo $PATH'", want: `^[^\n]*bin\n$`},
			{name: "named variables stay", script: "PATH=/bin:/nowhere:$PATH srun --container-env=PATH --container-image=" + tiny + " sh -c 'echo $PATH'", want: `^/bin:/nowhere:`},
			{name: "variable of the job", script: "A=b srun --container-image=" + tiny + " sh -c 'echo $A'", want: `^b\n$`},
			{name: "image by environment", script: "PYXIS_CONTAINER_IMAGE=" + tiny + " srun sh -c 'test -e /bin/busybox && echo in'", want: `^in\n$`},
			{name: "terminal", script: `script -qec "srun --pty --container-image=` + tiny + ` sh -c 'tty && echo ok'" /dev/null </dev/null`, want: `/dev/pts/\d+\s+ok`},
			{name: "tmp is the job's", script: "salloc sh -c 'srun touch /tmp/e2e-mark; srun --container-image=" + tiny + " ls /tmp/e2e-mark; rm -f /tmp/e2e-mark' 2>/dev/null", want: `^/tmp/e2e-mark\n$`},
		} {
			t.Run(tc.name, func(t *testing.T) {
				r := s.as(t, "alice", tc.script)
				if r.Code != tc.code {
					t.Errorf("want exit code %d: %v", tc.code, r)
				}
				if !regexp.MustCompile(tc.want).MatchString(r.Stdout) {
					t.Errorf("want stdout %s: %v", tc.want, r)
				}
				if tc.says != "" && !regexp.MustCompile(tc.says).MatchString(r.Stderr) {
					t.Errorf("want stderr %s: %v", tc.says, r)
				}
			})
		}
		s.idle(t)
	})
}

// fileImage leaves a squashfs file for users at /shared/x.sqsh.
func (s *site) fileImage(t *testing.T) {
	t.Helper()
	s.With(t).MustRun(t.Context(), "ctl", "alice", "srun", "-w", "n1", "--container-image="+tiny, "true")
	s.With(t).MustRun(t.Context(), "n1", "root", "sh", "-c",
		"cp /var/lib/berth/images/sha256/*/rootfs.sqfs /shared/x.sqsh && chmod 644 /shared/x.sqsh")
}

// A user's error is one clear line per node, fails the job, and drains nothing.
func TestErrors(t *testing.T) {
	bothWays(t, func(t *testing.T, s *site) {
		for _, tc := range []struct{ name, args, says string }{
			{"no such image", "--container-image=" + registry + "/nothing:1 true", `nothing`},
			{"no such command", "--container-image=" + tiny + " no-such-command", `no-such-command`},
			{"missing source", "--container-image=" + tiny + " --container-mounts=/no/such:/x true", `source path does not exist: /no/such`},
			{"escape", "--container-image=" + tiny + " --container-mounts=/tmp:../home true", `leaves the container|\.\./home`},
			{"no workdir", "--container-image=" + tiny + " --container-workdir=/nowhere true", `/nowhere`},
			{"registry down", "--container-image=10.97.0.1:5999/x:1 true", `10\.97\.0\.1:5999`},
		} {
			t.Run(tc.name, func(t *testing.T) {
				r := s.as(t, "alice", "srun -N1 -n2 "+tc.args)
				if r.Code == 0 {
					t.Errorf("exit code 0: %v", r)
				}
				if !regexp.MustCompile(tc.says).MatchString(r.Stderr) {
					t.Errorf("want stderr %s: %v", tc.says, r)
				}
				b := s.as(t, "alice", "sbatch -W -o /shared/err.out --wrap true "+strings.Replace(tc.args, " true", "", 1))
				if b.Code == 0 && tc.name != "no such command" {
					t.Errorf("batch job succeeded: %v", b)
				}
			})
		}
		s.idle(t)
	})
}
