package inside

import (
	"strings"
	"testing"

	"github.com/berth-hpc/berth/launcher"
)

func TestScratchFolder(t *testing.T) {
	for name, tc := range map[string]struct{ folder, tmp, job, want string }{
		"the job's":        {"%t", "/jobs/77/tmp", "77", "/jobs/77/tmp"},
		"below the job's":  {"%t/%u", "/jobs/77/tmp/", "77", "/jobs/77/tmp/alice"},
		"no job's":         {"%t", "", "", "/tmp"},
		"not a path":       {"%t", "tmp", "", "/tmp"},
		"the site's":       {"/scratch/%u/%j", "", "77", "/scratch/alice/77"},
		"no number":        {"/scratch/%u/%j", "", "", "error: not known"},
		"a number's trick": {"/scratch/%j", "", "../x", "error: not known"},
		"none":             {"", "/tmp", "77", "error: names no folder"},
	} {
		t.Setenv("TMPDIR", "/tmp")
		got, err := scratchFolder(&launcher.Request{
			User: launcher.User{Name: "alice"}, Scratch: launcher.Scratch{Folder: tc.folder},
			Job: launcher.Job{ID: tc.job, TmpDir: tc.tmp},
		})
		want, wrong := strings.CutPrefix(tc.want, "error: ")
		if wrong != (err != nil) || err == nil && got != want || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %q, %v, want %s", name, got, err, tc.want)
		}
	}
}
