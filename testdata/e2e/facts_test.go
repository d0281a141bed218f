package e2e

import (
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestSameFacts compares by a program of its own (testdata/probe) what tasks
// have in a container with what they have without: descriptors, session and
// terminal, signals, limits, scheduling, cgroup, flags of the process, cores. The
// cluster's containers of both kinds run it.
func TestSameFacts(t *testing.T) {
	bothWays(t, func(t *testing.T, s *site) {
		numbers := regexp.MustCompile(`[0-9]+`) // of jobs and steps
		inside := " --container-image=" + tiny + " "
		s.installProbe(t)
		s.install(t, "batch", "#!/bin/sh\nexec /shared/probe facts\n")
		s.MustRun(t.Context(), "ctl", "root", "install", "-d", "-m", "1777", "/shared/same")
		check(t, s.as(t, "alice", "srun -Q -w n1"+inside+"true"), 0, "^$", "^$")
		for _, tc := range []struct {
			name, script string
			want         string // what shows that there was something to compare
		}{
			{"task", "srun -Q -w n1 OPTIONS /shared/probe facts", `umask 0022`},
			{"tasks", "srun -Q -w n1 -n4 --overcommit -l OPTIONS /shared/probe facts | sort", `(?m)^3: umask`},
			{"input of a file", "srun -Q -w n1 OPTIONS /shared/probe facts </etc/passwd", `umask`},
			{"files for output", "cd /shared/same; rm -f out; srun -Q -w n1 -o out OPTIONS /shared/probe facts; cat out", `descriptor 1: type`},
			{"what srun has", "umask 027; ulimit -S -n 77; ulimit -c 4000; nice -n 3 srun -Q -w n1 --propagate=ALL OPTIONS /shared/probe facts", `(?s)umask 0027.*files +77`},
			{"processors", "srun -Q -w n1 -c2 --cpu-bind=cores OPTIONS /shared/probe facts", `Cpus_allowed`},
			{"terminal", `script -qec "srun -Q -w n1 --pty OPTIONS /shared/probe facts" /dev/null </dev/null`, `descriptor 0: /dev/pts/N, the same file yes, group in front: mine yes`},
			{"batch step", `cd /shared/same; rm -f out; sbatch -Q --wait -w n1 -o out OPTIONS /shared/batch; cat out`, `umask`},
			{"a child's core", "rm -f /shared/same/*; srun -Q -w n1 OPTIONS /shared/probe core /shared/same; ls /shared/same", `signal 6, core dumped yes\n(?s:.*)core`},
			{"a task's core", "rm -f /shared/same/*; srun -Q -w n1 OPTIONS /shared/probe abort /shared/same; echo $?; ls /shared/same", `134\ncore`},
			{"no core", "rm -f /shared/same/*; srun -Q -w n1 OPTIONS sh -c 'ulimit -c 0; exec /shared/probe core /shared/same'; ls /shared/same", `core dumped no\n$`},
		} {
			t.Run(tc.name, func(t *testing.T) {
				run := func(options string) string {
					r := s.as(t, "alice", strings.ReplaceAll(tc.script, "OPTIONS", options))
					// The terminal shows the end of script's input when it likes.
					return strings.ReplaceAll(r.Stdout, "^@", "") + numbers.ReplaceAllString(r.Stderr, "N")
				}
				bare, in := run(""), run(inside)
				if d := cmp.Diff(strings.Split(bare, "\n"), strings.Split(in, "\n")); d != "" {
					t.Errorf("bare (-) and in a container (+):\n%s", d)
				}
				if !regexp.MustCompile(tc.want).MatchString(bare) {
					t.Errorf("want %s:\n%s", tc.want, bare)
				}
			})
		}
		s.idle(t)
	})
}
