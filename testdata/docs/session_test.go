package docs

import (
	"cmp"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/berth-hpc/berth/testdata/cluster"
)

// anyJob is the number that documents give to whichever job was submitted last.
const anyJob = "4711"

// busy is what is said on the way where things take longer: by srun, when nodes
// are not free at once, by Berth, when an image comes.
var busy = regexp.MustCompile(`(?m)^(srun: job \d+ (queued and waiting for|has been allocated) resources|berth: (asking the registry for|waiting for|waiting: another job|getting|converting|storing|preparing) .*|berth: \S+: (asking|waiting|pulling|unpacking|compressing|pushing|saving|storing) .*)\n`)

// separator comes before and after what a command printed.
const separator = "\x1e"

// A session is a reader who works through one document.
type session struct {
	*cluster.Cluster
	t   *testing.T
	doc Document
	job string // the number of the last submitted job; empty before the first
}

// block runs a block's commands and compares what they print.
func (s *session) block(b Block) {
	s.t.Helper()
	s.commands(b.Setup, b.Machine, 0)
	commands, err := b.Commands()
	if err != nil {
		s.t.Errorf("%s: %v", s.doc.Name, err)
		return
	}
	s.commands(commands, b.Machine, b.Exit)
}

// commands runs them in the order in which they stand: those of one prompt that
// follow each other in one shell, where nothing else is said users' on the submit
// host and root's on a node.
func (s *session) commands(all []Command, machine string, exit int) {
	s.t.Helper()
	for len(all) > 0 {
		n := 1
		for n < len(all) && all[n].Root == all[0].Root {
			n++
		}
		last := 0
		if n == len(all) {
			last = exit
		}
		user, on := "alice", "ctl"
		if all[0].Root {
			user, on = "root", "n1"
		}
		s.shell(all[:n], cmp.Or(machine, on), user, last)
		all = all[n:]
	}
}

// shell runs commands in one shell; the last ends with status exit, all others
// with 0.
func (s *session) shell(all []Command, machine, user string, exit int) {
	s.t.Helper()
	r := s.With(s.t).Run(s.t.Context(), machine, user, "bash", "-c", s.script(all))
	answers := strings.Split(r.Stdout, separator)
	for i, c := range all {
		where := fmt.Sprintf("%s:%d: %s", s.doc.Name, c.Line, c.Text)
		if len(answers) < 2*i+3 {
			s.t.Errorf("%s: the shell ended: %v", where, r)
			return
		}
		want := 0
		if i == len(all)-1 {
			want = exit
		}
		s.judge(where, c, strings.TrimSpace(answers[2*i+2]), answers[2*i+1], want)
	}
}

func (s *session) judge(where string, c Command, status, printed string, want int) {
	s.t.Helper()
	if m := regexp.MustCompile(`(?m)(?:Submitted batch job|Granted job allocation) (\d+)`).FindStringSubmatch(printed); m != nil {
		s.job = m[1]
	}
	printed = busy.ReplaceAllString(printed, "")
	if s.job != "" {
		printed = regexp.MustCompile(`\b`+s.job+`\b`).ReplaceAllString(printed, anyJob)
	}
	if status != strconv.Itoa(want) {
		s.t.Errorf("%s\nended with %s, not %d:\n%s", where, status, want, printed)
	} else if !matches(c.Output, printed) {
		s.t.Errorf("%s\nprinted:\n%sthe document shows:\n%s", where, printed, c.Output)
	}
}

// script is what bash runs: each command with its output, and its status after
// it. A file that the document shows is made when it is not there.
func (s *session) script(all []Command) string {
	var b strings.Builder
	fmt.Fprintf(&b, "job=%s status=0; shown=$(mktemp); trap 'rm -f $shown' EXIT\n", s.job)
	for _, c := range all {
		if file := c.file(); file != "" {
			fmt.Fprintf(&b, "[ -e %[1]s ] || printf %%s %[2]s >%[1]s\n", file, quote(c.Output))
		}
		fmt.Fprintf(&b, "command=%s\n", quote(c.Text))
		fmt.Fprintf(&b, "(exit $status); eval \"${command//%s/${job:-%[1]s}}\" </dev/null >$shown 2>&1; status=$?\n", anyJob)
		fmt.Fprintf(&b, "printf %s; cat $shown; printf '%s%%s' $status\n", separator, separator)
		b.WriteString(`job=$(sed -nE 's/.*(Submitted batch job|Granted job allocation) ([0-9]+).*/\2/p' $shown | tail -n 1 | grep . || echo $job)` + "\n")
	}
	return b.String()
}

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
