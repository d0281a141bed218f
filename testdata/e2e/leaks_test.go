package e2e

import (
	"regexp"
	"strings"
	"testing"
)

// listHook writes which descriptors it has.
const listHook = `{"version": "1.0.0", "hook": {"path": "/bin/sh", "args": ["sh", "-c", "exec >>/shared/same/hooks; ls -l /proc/$$/fd; echo hook"]},
 "when": {"always": true}, "stages": ["createRuntime", "createContainer", "startContainer"]}`

// TestLeakedDescriptors: of what root's helper and the plugin have open on a
// node, hooks and whoever serves an image, which are the user's, get nothing.
// Tasks are TestSameFacts'.
func TestLeakedDescriptors(t *testing.T) {
	bothWays(t, func(t *testing.T, s *site) {
		s.MustRun(t.Context(), "ctl", "root", "install", "-d", "-m", "1777", "/shared/same")
		id := s.inside(t, "-w n1 --container-writable --container-image="+tiny)
		hooks := s.With(t).MustRun(t.Context(), "ctl", "root", "cat", "/shared/same/hooks")
		if n := strings.Count(hooks, "hook\n"); n != 3 {
			t.Errorf("%d hooks ran:\n%s", n, hooks)
		}
		noOthers(t, hooks, `^total|^hook$| [012] -> `)
		servers := s.With(t).MustRun(t.Context(), "n1", "root", "sh", "-c", "for p in $(pgrep -x squashfuse_ll); do echo server; ls -l /proc/$p/fd; done")
		if want := strings.HasSuffix(t.Name(), "idmap=false"); want != (strings.Count(servers, "server\n") == 1) {
			t.Errorf("servers:\n%s", servers)
		}
		noOthers(t, servers, `^total|^server$| [012] -> /dev/null$| [35] -> .*/rootfs\.sqfs$| 4 -> /(dev/fuse)?$`)
		check(t, s.as(t, "alice", "scancel "+id), 0, "", "")
		s.idle(t)
	}, withFiles(writeFile(t, "list.json", listHook)+":/etc/berth/hooks.d/list.json"))
}

// noOthers fails the test for lines that do not match.
func noOthers(t *testing.T, lines, match string) {
	t.Helper()
	expected := regexp.MustCompile(match)
	for line := range strings.Lines(lines) {
		if !expected.MatchString(strings.TrimSpace(line)) {
			t.Errorf("unexpected: %s", line)
		}
	}
}
