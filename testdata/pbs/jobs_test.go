package main

import (
	"regexp"
	"slices"
	"strings"
	"testing"
)

// script writes a job script and submits it.
func script(options, text string) string {
	return "cat >job.sh <<'END'\n#!/bin/sh\n" + text + "\nEND\nqsub -S /bin/sh " + options + " job.sh"
}

const image = "-l container_image=" + tiny + " "

// inside prints its name in a container of the image tiny, and nothing outside.
const inside = `test -n "$TINY_IMAGE" && echo inside`

// A shape is one way to run a job.
type shape struct {
	name, submit string
	code         int
	want         string // regular expression over the whole of the output
}

// shapes is what users type. Those are what a real server runs, too.
func shapes() []shape {
	return []shape{
		{"batch", script(image, inside+"; id -un; pwd; exit 7"), 7, `^inside\nalice\n/home/alice\n$`},
		{"a shell that the image lacks", "printf '#!/bin/sh\n" + inside + "\n' >job.sh; qsub -S /bin/bash " + image + "job.sh", 0, `^berth: [^\n]* /bin/bash[^\n]*\ninside\n$`},
		{"directive", script("", "#PBS -l container_image="+tiny+"\n"+inside), 0, `^inside\n$`},
		{"by variable", script("-v CONTAINER_IMAGE="+tiny, inside), 0, `^inside\n$`},
		{"no container", script("", "test -e /etc/pbs.conf && echo \"$TINY_IMAGE\""), 0, `^\n$`},
		{"work folder", "mkdir -p /shared/w && cd /shared/w && " + script(image, "cd $PBS_O_WORKDIR && pwd"), 0, `^/shared/w\n$`},
		{"executable", "qsub " + image + "-- /bin/sh -c '" + inside + "; echo \"$0\" $#' 'a  b' 'c,d' 'e\\f' --", 0, `^inside\na  b 3\n$`},
		{"values", script(image+`-l container_mounts='"/shared:/a b,tmpfs:/t"' -l container_env='"HOME,TINY_IMAGE"' -v 'TINY_IMAGE=2,X=a\,b'`, `ls -d "/a b" /t; echo $TINY_IMAGE $X`), 0, `^/a b\n/t\n2 a,b\n$`},
		{"newline in a variable", "qsub " + image + "-v \"X=a\nb\" -- /bin/sh -c 'echo \"$X\"'", 0, `^a\nb\n$`},
		{"workdir", script(image+"-l container_workdir=/bin", "pwd"), 0, `^/bin\n$`},
		{"what PBS has", script(image, `cat $PBS_NODEFILE; touch $TMPDIR/x && echo tmp; test -x $0 && echo script; command -v pbs_tmrsh; id -nG`), 0, `^n1\ntmp\nscript\n/opt/pbs/bin/pbs_tmrsh\nalice.*biology`},
		{"array", script("-J 1-3 "+image, inside+"; echo part $PBS_ARRAY_INDEX"), 0, `(?s)^.*inside.*$`},
		{"interactive", "printf '" + inside + "\\ntty\\ntest -t 0 && echo terminal\\nexit 3\\n' | qsub -I -S /bin/sh " + image, 3, `(?s)inside.*/dev/pts/\d+.*\nterminal`},
		{"two nodes", script(image+"-l select=2", "pbsdsh -- sh -c '"+strings.ReplaceAll(inside, "'", "")+"; hostname' | sort"), 0, `^inside\ninside\nn1\nn2\n$`},
		{"pbs_tmrsh", script(image+"-l select=2", "pbs_tmrsh n2 sh -c '"+inside+"; hostname; pwd; echo \"$1\"' sh 'a b'; echo $?"), 0, `^inside\nn2\n/home/alice\na b\n0\n$`},
		{"exit status of a task", script(image+"-l select=2", "pbs_tmrsh n2 sh -c 'exit 5'; echo $?; pbs_tmrsh n3 true || echo no"), 0, `(?s)^5\n.*no\n$`},
		{"ranks", script(image+"-l container_mode=ranks -l select=2", `echo "host:$TINY_IMAGE"; cd /shared; /opt/berth/bin/berth exec -- sh -c '`+inside+`; pwd'; /opt/pbs/bin/pbsdsh -- /opt/berth/bin/berth exec -- sh -c 'echo $TINY_IMAGE; hostname' | sort`), 0, `^host:\ninside\n/shared\n1\n1\nn1\nn2\n$`},
		{"signal", script(image, "kill -9 $PPID"), 256 + 9, `^$`},
	}
}

// TestJobs: every shape of a job, on two nodes. The exit status of the stand-in
// is the job's, as far as a process can have it.
func TestJobs(t *testing.T) {
	bothWays(t, func(t *testing.T, s *site) {
		for _, tc := range shapes() {
			t.Run(tc.name, func(t *testing.T) {
				r := s.as(t, "alice", tc.submit)
				if r.Code != tc.code&0xff || !regexp.MustCompile(tc.want).MatchString(strings.ReplaceAll(r.Stdout, "\r", "")) {
					t.Errorf("want %d, %s: %v", tc.code, tc.want, r)
				}
				if tc.name == "array" && !slices.Equal(parts(r.Stdout), []string{"inside", "inside", "inside", "part 1", "part 2", "part 3"}) {
					t.Errorf("parts %q", r.Stdout)
				}
			})
		}
		s.clean(t)
		// PBS's jobs have one record a node, without a step, and are counted.
		s.on(t, "n1", `f=$(ls /var/lib/berth/records/jobs/*.2001.jsonl | head -n1); job=$(basename $f .2001.jsonl)
			/opt/berth/bin/berth record --json "$job" | grep -F '"digest": "sha256:' && /opt/berth/bin/berth logs "$job" | grep 'container ready' &&
			grep 'berth_containers_total' /var/lib/berth/records/berth.prom`)
	}, "tiny")
}

func parts(out string) []string {
	lines := strings.Split(strings.TrimSpace(out), "\n")
	slices.Sort(lines)
	return lines
}

// TestUserErrors: each ends its job with 125 and words in its output, at the
// first try, and the nodes go on.
func TestUserErrors(t *testing.T) {
	s := newSite(t, "[container]\nmounts = [\"/shared\"]\n", "tiny")
	for _, tc := range []struct{ name, options, says string }{
		{"no such image", "-l container_image=" + registry + "/nothing:1", "nothing"},
		{"registry down", "-l container_image=10.97.0.1:5999/x:1", `10\.97\.0\.1:5999`},
		{"missing source", image + "-l container_mounts=/no/such:/x", "source path does not exist: /no/such"},
		{"no workdir", image + "-l container_workdir=/nowhere", "/nowhere"},
		{"no file", "-l container_image=/shared/none.sqsh", "none.sqsh"},
		{"several nodes, no digest", "-l select=2 -l container_image=10.97.0.1:5999/x:1", "no.*digest|digest"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := s.as(t, "alice", script(tc.options, "echo ran"))
			if r.Code != 125 || !regexp.MustCompile("berth: error: .*"+tc.says).MatchString(r.Stdout) || strings.Contains(r.Stdout, "ran\n") {
				t.Errorf("%v", r)
			}
		})
	}
	t.Run("no such command", func(t *testing.T) {
		r := s.as(t, "alice", "qsub "+image+"-- /no/such")
		if r.Code != 127 || !strings.Contains(r.Stdout, "/no/such") {
			t.Errorf("%v", r)
		}
	})
	for name, says := range map[string]string{
		"-l container_image=x.sqsh":             "did you mean ./x.sqsh",
		"-l container_mounts=/a:/b":             "needs container_image",
		image + "-l container_mode=rank":        "write job",
		image + "-l container_mounts=a:/b":      "slash or a dot",
		"-v CONTAINER_IMAGE=Debian":             "is no image",
		"-v \"X=a\npbs.event().job.euser=bob\"": "taken for PBS",
	} {
		if r := s.as(t, "alice", script(name, "echo ran")); r.Code != 1 || !strings.Contains(r.Stderr, says) || r.Stdout != "" {
			t.Errorf("%s: %v", name, r)
		}
	}
	s.clean(t)
	if r := s.as(t, "alice", script(image, inside)); r.Stdout != "inside\n" {
		t.Errorf("afterwards: %v", r)
	}
}
