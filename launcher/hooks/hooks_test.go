package hooks_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/berth-hpc/berth/launcher/hooks"
	"golang.org/x/sys/unix"
)

const good = `{"version": "1.0.0", "hook": {"path": "/bin/true", "timeout": 3}, "when": {"always": true}, "stages": ["prestart"], "other": 1}`

func TestParse(t *testing.T) {
	if h, err := hooks.Parse([]byte(good)); err != nil || h.Timeout != 3 || h.Path != "/bin/true" {
		t.Errorf("%+v, %v", h, err)
	}
	for change, want := range map[string]string{
		`"1.0.0" "0.1.0"`:                             "version",
		`"/bin/true" "true"`:                          "absolute path",
		`"prestart" "precreate"`:                      `no stage "precreate"`,
		`["prestart"] []`:                             "stages is missing",
		`"when" "wenn"`:                               "when is missing",
		`3 -1`:                                        "timeout",
		`{"always":·true} {"commands":·["("]}`:        "missing closing",
		`{"always":·true} {"commands":·"all"}`:        "cannot unmarshal",
		`{"always":·true} {"annotations":·{"[":·""}}`: "missing closing",
	} {
		from, to, _ := strings.Cut(change, " ")
		from, to = strings.ReplaceAll(from, "·", " "), strings.ReplaceAll(to, "·", " ")
		text := strings.Replace(good, from, to, 1)
		if _, err := hooks.Parse([]byte(text)); text == good || err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", text, err, want)
		}
	}
}

func TestWants(t *testing.T) {
	yes, no := true, false
	facts := &hooks.Facts{Command: "/usr/bin/python3", Annotations: map[string]string{"org.x": "fluid-dynamics"}, BindMounts: true}
	for name, tc := range map[string]struct {
		when hooks.When
		want bool
	}{
		"nothing":               {hooks.When{}, false},
		"always":                {hooks.When{Always: &yes}, true},
		"never":                 {hooks.When{Always: &no, Commands: []string{".*"}}, false},
		"command":               {hooks.When{Commands: []string{"^x$", "python3$"}}, true},
		"other command":         {hooks.When{Always: &yes, Commands: []string{"^python3$"}}, false},
		"annotation":            {hooks.When{Annotations: map[string]string{`^org\.`: "^fluid"}}, true},
		"two annotations":       {hooks.When{Annotations: map[string]string{`^org\.`: "^fluid", "^com": ""}}, false},
		"mounts":                {hooks.When{HasBindMounts: &yes}, true},
		"mounts do not matter":  {hooks.When{HasBindMounts: &no}, false},
		"mounts and annotation": {hooks.When{HasBindMounts: &yes, Annotations: map[string]string{"x": "solid"}}, false},
	} {
		if got := (&hooks.Hook{When: tc.when}).Wants(facts); got != tc.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// A hook's time is over although what it started has its output open.
// On kernels without close_range(2) hooks get nothing else either.
func TestDescriptorsOneByOne(t *testing.T) {
	f, err := os.Open(".")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, keep := range []func(){hooks.KeepEach, hooks.KeepDescriptors} {
		if _, err := unix.FcntlInt(f.Fd(), unix.F_SETFD, 0); err != nil {
			t.Fatal(err)
		}
		keep()
		if flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFD, 0); err != nil || flags != unix.FD_CLOEXEC {
			t.Errorf("flags %d, %v", flags, err)
		}
	}
}

func TestDoEndsInTime(t *testing.T) {
	for _, script := range []string{"sleep 100", "sleep 100 & exit 0", "setsid sleep 3 & sleep 100"} {
		begin := time.Now()
		err := (&hooks.Run{Name: "n", Path: "/bin/sh", Args: []string{"sh", "-c", script}, Timeout: 200 * time.Millisecond}).Do(strings.NewReader("{}"))
		if took := time.Since(begin); took > 5*time.Second {
			t.Errorf("%s took %s: %v", script, took, err)
		}
		if late := err != nil && strings.Contains(err.Error(), "was not done after 200ms"); late != (script != "sleep 100 & exit 0") {
			t.Errorf("%s: %v", script, err)
		}
	}
}

func TestDoTellsTheEndOfTheOutput(t *testing.T) {
	r := &hooks.Run{Name: "n", Path: "/bin/sh", Args: []string{"sh", "-c", "yes first | head -n 100000; echo last; exit 4"}, Timeout: time.Minute}
	err := r.Do(strings.NewReader(""))
	if err == nil || len(err.Error()) > 5000 || !strings.HasSuffix(err.Error(), "first last") || !strings.Contains(err.Error(), "exit status 4") {
		t.Error(err)
	}
}

// A file in a later folder hides one of the same name, also with an error.
func TestLoad(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, whose files count")
	}
	dirs := []string{t.TempDir(), t.TempDir(), "/nonexistent"}
	for _, d := range dirs[:2] {
		if err := errors.Join(os.Chmod(filepath.Dir(d), 0o755), os.Chmod(d, 0o755)); err != nil {
			t.Fatal(err)
		}
	}
	for path, text := range map[string]string{
		dirs[0] + "/a.json": good, dirs[0] + "/b.json": good, dirs[1] + "/a.json": "{", dirs[1] + "/c.json": good, dirs[1] + "/d.txt": "",
	} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	all, problems := hooks.Load(dirs, 0)
	if len(all) != 2 || all[0].Name != "b" || all[1].Name != "c" {
		t.Errorf("%+v", all)
	}
	if len(problems) != 1 || problems[0].Path != dirs[1]+"/a.json" {
		t.Errorf("%+v", problems)
	}
}
