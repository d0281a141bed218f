package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// The same on a real server. It needs PBS_EXEC, root on the server's host, Berth
// at one path on all hosts (BERTH_PREFIX), `make pbs-install` done, and
//
//	BERTH_PBS_USER    who submits
//	BERTH_PBS_IMAGE   an image that all nodes can get, with sh, hostname and the
//	                  variable TINY_IMAGE set (testdata/images: tiny)
//	BERTH_PBS_DIR     a folder that all hosts and the user share
//
// TestRealPBS runs what can be asked of a server that others use too: the
// shapes of jobs, errors, and that no node went offline.
func TestRealPBS(t *testing.T) {
	if os.Getenv("PBS_EXEC") == "" {
		t.Skip("PBS_EXEC is not set: no real PBS server here")
	}
	r := &realSite{t: t, exec: os.Getenv("PBS_EXEC")}
	for name, into := range map[string]*string{
		"BERTH_PBS_USER": &r.user, "BERTH_PBS_IMAGE": &r.image, "BERTH_PBS_DIR": &r.dir, "BERTH_PREFIX": &r.prefix,
	} {
		if *into = os.Getenv(name); *into == "" {
			t.Fatalf("%s is not set; this file says what is needed", name)
		}
	}
	before := r.nodes()
	with := "-l container_image=" + r.image + " "
	for _, tc := range []struct {
		name, options, script string
		code                  int
		want                  string
	}{
		{"batch", with, inside + "; id -un; pwd; exit 7", 7, `^inside\n` + r.user + `\n/.*\n$`},
		{"by variable", "-v CONTAINER_IMAGE=" + r.image, inside, 0, `^inside\n$`},
		{"no container", "", `echo "none$TINY_IMAGE"`, 0, `^none\n$`},
		{"values", with + `-l container_mounts='"/tmp:/a b,tmpfs:/t"'`, `ls -d "/a b" /t`, 0, `^/a b\n/t\n$`},
		{"what PBS has", with, `test -s $PBS_NODEFILE && touch $TMPDIR/x && test -e $0 && command -v pbs_tmrsh`, 0, `pbs_tmrsh\n$`},
		{"two nodes", with + "-l select=2:ncpus=1 -l place=scatter", "pbsdsh -- sh -c 'test -n \"$TINY_IMAGE\" && hostname' | sort -u | wc -l", 0, `^\s*2\n$`},
		{"pbs_tmrsh", with + "-l select=2:ncpus=1 -l place=scatter", "pbs_tmrsh $(tail -n1 $PBS_NODEFILE) sh -c '" + inside + "'; echo $?", 0, `inside\n(.|\n)*0\n$`},
		{"ranks", with + "-l container_mode=ranks", `echo "host$TINY_IMAGE"; ` + r.prefix + "/bin/berth exec -- sh -c '" + inside + "'", 0, `^host\ninside\n$`},
		{"no such image", "-l container_image=" + r.image + "-missing", "echo ran", 125, `berth: error: `},
		{"missing source", with + "-l container_mounts=/no/such:/x", "echo ran", 125, `source path does not exist: /no/such`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			out, code := r.job(t, tc.options, tc.script)
			if code != tc.code || !regexp.MustCompile(tc.want).MatchString(out) {
				t.Errorf("exit status %d, want %d; output %q, want %s", code, tc.code, out, tc.want)
			}
		})
	}
	if after := r.nodes(); before != after {
		t.Errorf("the nodes were\n%s\nand are\n%s", before, after)
	}
}

// A realSite is a server that somebody else runs.
type realSite struct {
	t                              *testing.T
	exec, user, image, dir, prefix string
}

// job submits a script as the user, waits, and returns its output and status.
func (r *realSite) job(t *testing.T, options, script string) (string, int) {
	t.Helper()
	dir, err := os.MkdirTemp(r.dir, "berth-test.")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "job.sh")
	must(t, os.WriteFile(path, []byte("#!/bin/sh\n"+script+"\n"), 0o755))
	must(t, os.Chmod(dir, 0o777))
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "su", r.user, "-c",
		r.exec+"/bin/qsub -W block=true -j oe -S /bin/sh -o "+dir+"/out "+options+" "+path)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Run(); cmd.ProcessState == nil {
		t.Fatalf("qsub: %v", err)
	}
	out, err := os.ReadFile(filepath.Join(dir, "out"))
	if err != nil {
		t.Fatalf("no output of the job: %v; %s", err, stderr.String())
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// nodes is what PBS says of the state of each.
func (r *realSite) nodes() string {
	r.t.Helper()
	out, err := exec.Command(r.exec+"/bin/pbsnodes", "-a").Output()
	must(r.t, err)
	var states []string
	for line := range strings.Lines(string(out)) {
		if text := strings.TrimSpace(line); strings.HasPrefix(text, "state = ") || line == text+"\n" {
			states = append(states, text)
		}
	}
	return strings.Join(states, "\n")
}
