package e2e

import (
	"regexp"
	"strings"
	"testing"
	"time"
)

// inside submits a job in an image, with a file that only its container has,
// and returns its number once its task runs.
func (s *site) inside(t *testing.T, options string) string {
	t.Helper()
	id := s.submit(t, "-o /shared/%j.in "+options+" --wrap 'echo mine >/mine 2>/dev/null; echo up; sleep 1000'")
	until(t, 40*time.Second, "the job's task runs", func() bool {
		return strings.Contains(s.With(t).Run(t.Context(), "ctl", "root", "cat", "/shared/"+id+".in").Stdout, "up")
	})
	return id
}

// TestExec joins containers of jobs from where users are: on the submit host,
// on the job's node, in the job; and not those of others.
func TestExec(t *testing.T) {
	bothWays(t, func(t *testing.T, s *site) {
		container := "--container-writable --container-image=" + tiny
		id := s.inside(t, "-w n2 --exclusive=user "+container)
		bare := s.inside(t, "-w n1")
		held := s.submit(t, "-H "+container+" --wrap true")
		array := s.inside(t, "-w n3 --array=7 "+container+" --container-remap-root")
		for _, tc := range []struct {
			name, user, where, script string
			code                      int
			want, says                string
		}{
			{
				name: "from the submit host", script: "cd /shared; A=b berth exec JOB -- sh -c 'cat /mine; id -un; pwd; echo $A $TINY_IMAGE $SLURM_JOB_ID $SLURMD_NODENAME; exit 7'",
				code: 7, want: `^mine\nalice\n/\nb 1 JOB n2\n$`,
			},
			{name: "its step", script: "berth exec JOB.batch cat /mine", want: `^mine\n$`},
			{name: "standard input", script: "echo hello | berth exec JOB cat", want: `^hello\n$`},
			{name: "quotes", script: `berth exec JOB -- echo '$HOME' "a  b" --here`, want: `^\$HOME a  b --here\n$`},
			{name: "signal", script: "berth exec JOB -- sh -c 'kill -TERM $$'", code: 143},
			{name: "options", script: "berth exec --workdir /tmp --env TINY_IMAGE=x --env Q='a b' JOB -- sh -c 'echo $PWD $TINY_IMAGE $Q'", want: `^/tmp x a b\n$`},
			{name: "cgroup and session of a step", script: "berth exec JOB -- sh -c 'echo $SLURM_STEP_ID; cat /proc/$PPID/comm'", want: `^\d+\nslurmstepd`},
			{name: "of the very process", script: "berth exec JOB -- sh -c 'readlink /proc/self/ns/mnt'; squeue -h -j JOB -o x", want: `^mnt:.*\nx\n$`},
			{name: "shell", script: `printf 'cat /mine; echo $0\n' | SHELL=/bin/nosuch berth shell JOB`, want: `^mine\n/bin/sh\n$`},
			{name: "terminal", script: `printf 'tty; sleep 500 & jobs; kill %%1; exit 5\n' | script -qec "berth shell JOB" /dev/null`, code: 5, want: `(?s)/dev/pts/\d+.*Running +sleep 500`},
			{name: "array, as root", script: "berth exec ARRAY_7 -- sh -c 'cat /mine; id -u'", want: `^mine\n0\n$`},
			{name: "on the node", where: "n2", script: "berth exec JOB cat /mine; berth exec --list", want: `(?s)^mine\nCONTAINER .*\nJOB\.batch +10\.97\.0\.1:5000/tiny:1 `},
			{name: "in an image by default", script: "PYXIS_CONTAINER_IMAGE=" + tiny + " berth exec JOB cat /mine", want: `^mine\n$`},
			{name: "another's", user: "bob", script: "berth exec JOB cat /mine", code: 64, says: `it is alice's, not yours`},
			{name: "another's, on the node", user: "bob", where: "n2", script: "berth exec JOB cat /mine; berth exec --here JOB cat /mine", code: 64, says: `(?s)it is alice's, not yours.*no container of yours by that name runs here, on n2`},
			{name: "by root", user: "root", where: "n2", script: "berth exec --here JOB cat /mine", code: 64, says: `no container of yours`},
			{name: "no container", script: "berth exec BARE true", code: 64, says: `no container of yours by that name runs here, on n1`},
			{name: "not running", script: "berth exec HELD true", code: 64, says: `it does not run: it is PENDING`},
			{name: "no such job", script: "berth exec 4000000 true", code: 64, says: `4000000: .*[Ii]nvalid job id`},
			{name: "no such step", script: "berth exec JOB.4 true", code: 64, says: `here run: JOB\.batch`},
			{name: "no such node of it", script: "berth exec --node n1 JOB true", code: 1, says: `node`},
		} {
			t.Run(tc.name, func(t *testing.T) {
				fill := strings.NewReplacer("JOB_ID", "JOB_ID", "JOB", id, "ARRAY", array, "BARE", bare, "HELD", held).Replace
				user, where := tc.user, tc.where
				if user == "" {
					user = "alice"
				}
				if where == "" {
					where = "ctl"
				}
				r := s.With(t).Run(t.Context(), where, user, "bash", "-c", "cd ~ 2>/dev/null; "+fill(tc.script))
				if r.Code != tc.code {
					t.Errorf("want exit code %d: %v", tc.code, r)
				}
				if !regexp.MustCompile(fill(tc.want)).MatchString(r.Stdout) {
					t.Errorf("want stdout %s: %v", fill(tc.want), r)
				}
				if !regexp.MustCompile(fill(tc.says)).MatchString(r.Stderr) {
					t.Errorf("want stderr %s: %v", fill(tc.says), r)
				}
			})
		}
		s.With(t).MustRun(t.Context(), "ctl", "root", "scancel", id, bare, held, array)
		s.idle(t)
	})
}
