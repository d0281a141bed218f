package launcher_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/berth-hpc/berth/launcher"
)

// buildCalls builds testdata/calls.c into a folder that the test's user may
// write to; containers see it, because it is below /tmp.
func buildCalls(t *testing.T) (program, dir string) {
	t.Helper()
	dir = t.TempDir()
	open(t, dir, filepath.Dir(dir))
	program = filepath.Join(dir, "calls")
	if out, err := exec.Command("gcc", "-static", "-Wall", "-Werror", "-o", program, "testdata/calls.c").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if err := os.Chown(dir, user.UID, user.GID); err != nil {
		t.Fatal(err)
	}
	return program, dir
}

// Calls that need another id, or make a device, succeed for tasks that appear
// as root, do nothing, and are refused to everybody else.
func TestFilter(t *testing.T) {
	bothWays(t, func(t *testing.T, b *bed, idmap bool) {
		program, dir := buildCalls(t)
		users := b.users()
		c := b.create(b.creation(users, idmap))
		got := b.run(users, c, true, program+" "+dir)
		for line := range strings.Lines(got) {
			line = strings.TrimSpace(line)
			if strings.HasPrefix(line, "fchown of x32") && strings.HasSuffix(line, "38") {
				continue // ENOSYS: a kernel without x32 never gets as far
			}
			if !strings.HasSuffix(line, " 0") && line != "file 0:0" && line != "made p f" {
				t.Errorf("as root in appearance: %q", line)
			}
		}
		if !strings.Contains(got, "\nfile 0:0\nmade p f\nwho 0") {
			t.Errorf("a call did something, or the ids changed:\n%s", got)
		}
		if err := os.Remove(filepath.Join(dir, "p")); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(filepath.Join(dir, "f")); err != nil {
			t.Fatal(err)
		}
		refused := b.run(users, c, false, program+" "+dir)
		for _, call := range []string{"chown", "fchownat", "setgroups", "setresuid", "mknod c"} {
			if !regexp.MustCompile(`(?m)^` + call + ` [1-9]`).MatchString(refused) {
				t.Errorf("as the user, %s is not refused:\n%s", call, refused)
			}
		}
	})
}

// The filter leaves no_new_privs and a task's other children alone, and goes
// with what the task starts.
func TestFilterIsInherited(t *testing.T) {
	if !launcher.PrivateMounts(t) {
		return
	}
	b := newBed(t)
	users := b.users()
	c := b.create(b.creation(users, false))
	got := b.run(users, c, true, `sh -c "grep -E '^(NoNewPrivs|Seccomp):' /proc/self/status"`)
	if got != "NoNewPrivs:\t0\nSeccomp:\t2" {
		t.Error(got)
	}
	if got := b.run(users, c, false, "grep ^Seccomp: /proc/self/status"); got != "Seccomp:\t0" {
		t.Errorf("a task that is the user is filtered: %s", got)
	}
}
