package e2e

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/berth-hpc/berth/testdata/deploy"
)

// TestAnnotations looks for the pinned image in the AdminComment that
// spank/job_submit.lua writes, of jobs that wait and of such that ask for
// nothing, or for what would spoil the comment.
func TestAnnotations(t *testing.T) {
	s := newSite(t)
	s.annotate(t)
	for _, tc := range []struct{ name, options, want string }{
		{"pinned", "--container-image=" + tiny, `^AdminComment=berth=` + regexp.QuoteMeta(tiny) + `@sha256:[0-9a-f]{64}$`},
		{"not pinned", "--container-pin=no --container-image=" + tiny, `^AdminComment=berth=` + regexp.QuoteMeta(tiny) + `$`},
		{"no container", "", `^$`},
		{"a path with spaces", `--container-image="/shared/x y.sqsh"`, `^$`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			id := s.submit(t, "--hold -o /dev/null "+tc.options+" --wrap true")
			defer s.MustRun(t.Context(), "ctl", "alice", "scancel", id)
			out := s.With(t).MustRun(t.Context(), "ctl", "alice", "scontrol", "-o", "show", "job", id)
			got := strings.Join(regexp.MustCompile(`AdminComment=\S*`).FindAllString(out, -1), "")
			if !regexp.MustCompile(tc.want).MatchString(got) {
				t.Errorf("AdminComment %q, want %s", got, tc.want)
			}
		})
	}
	s.idle(t)
}

// annotate has slurmctld write images into AdminComments.
func (s *site) annotate(t *testing.T) {
	t.Helper()
	script, err := os.ReadFile(filepath.Join(deploy.Root(), "spank", "job_submit.lua"))
	if err != nil {
		t.Fatal(err)
	}
	conf := filepath.Join(s.Dir, "slurm")
	appendTo(t, filepath.Join(conf, "job_submit.lua"), string(script))
	appendTo(t, filepath.Join(conf, "slurm.conf"), "JobSubmitPlugins=lua\n")
	s.MustRun(t.Context(), "ctl", "root", "scontrol", "reconfigure")
}

func appendTo(t *testing.T, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}
