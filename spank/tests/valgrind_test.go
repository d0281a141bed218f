package tests

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/berth-hpc/berth/testdata/cluster"
)

const memcheck = "valgrind --quiet --vgdb=no --error-limit=no --num-callers=40 " +
	"--leak-check=full --show-leak-kinds=definite --log-file=/shared/valgrind.%p"

// A frame of a report's stack: "==9==    by 0x4B2A: strdup (strdup.c:42)". The
// place is a file of source, or of the program where it has no debug information.
var frame = regexp.MustCompile(`(?m)^==\d+== +(?:at|by) 0x[0-9A-F]+: .* \((?:in )?([^()]*)\)$`)

// ours says whether a report is about the plugin's own code: the innermost frame
// that is neither valgrind's nor the C library's is in it.
func ours(t *testing.T, report string) bool {
	t.Helper()
	for _, f := range frame.FindAllStringSubmatch(report, -1) {
		file, _, _ := strings.Cut(f[1], ":")
		if strings.Contains(file, "spank_berth.so") {
			return true
		}
		for _, dir := range []string{pluginDir, pluginDir + "/client", joinDir} {
			if _, err := os.Stat(filepath.Join(dir, file)); err == nil && !strings.Contains(file, "/") {
				return true
			}
		}
		if strings.Contains(file, "slurm") || strings.HasSuffix(file, "/srun") || strings.HasSuffix(file, "/sbatch") {
			return false
		}
	}
	return false
}

// TestValgrind runs srun, sbatch and slurmstepd under valgrind, with the plugin in
// them: no use of memory that is not there or was never written, and no leak, with
// the plugin in its stack. What Slurm's own code does there is not ours to say.
func TestValgrind(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("valgrind"); err != nil {
		t.Skip("needs valgrind")
	}
	b := start(t, cluster.Options{
		Nodes:     1,
		Plugstack: []string{"required " + plugstack + "libexec=/opt/fake/libexec"},
		Conf:      []string{"TaskProlog=/opt/fake/site-prolog", "MessageTimeout=60"},
	})
	// slurmd starts what lies in slurmstepd's place.
	b.MustRun(t.Context(), "n1", "root", "bash", "-ec", `
		cp /usr/sbin/slurmstepd /tmp/slurmstepd
		printf '#!/bin/sh\nexec `+strings.ReplaceAll(memcheck, "%", "%%")+`.step /tmp/slurmstepd "$@"\n' >/tmp/wrapper
		chmod 755 /tmp/wrapper /tmp/slurmstepd
		mount --bind /tmp/wrapper /usr/sbin/slurmstepd`)
	for _, tc := range []struct {
		command string
		fails   bool
	}{
		{command: "srun -n2 --container-image=fine --container-env=A,B --container-mounts=/a:/b --container-workdir=/ true"},
		{command: "srun --container-image=error true", fails: true},
		{command: "srun --container-image=fine --container-mounts=nonsense true", fails: true},
		{command: "srun true"},
		{command: "sbatch --wait --container-image=fine -o /dev/null --wrap true"},
	} {
		r := b.sh("timeout 120 %s.client %s", memcheck, tc.command)
		if (r.Code != 0) != tc.fails {
			t.Errorf("%s: %v", tc.command, r)
		}
		b.WaitIdle()
	}
	clients, _ := filepath.Glob(filepath.Join(b.Dir, "shared", "valgrind.*.client"))
	steps, _ := filepath.Glob(filepath.Join(b.Dir, "shared", "valgrind.*.step"))
	if len(clients) < 5 || len(steps) < 4 {
		t.Fatalf("logs of %d clients, %d steps", len(clients), len(steps))
	}
	for _, log := range append(clients, steps...) {
		for _, report := range reports(b.shared(filepath.Base(log))) {
			if ours(t, report) {
				t.Errorf("%s:\n%s", filepath.Base(log), report)
			}
		}
	}
}

// reports splits a log of valgrind's: a line with nothing but the process ends each.
func reports(log string) []string {
	return regexp.MustCompile(`(?m)^==\d+== *$`).Split(log, -1)
}
