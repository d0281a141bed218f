package e2e

import (
	"strings"
	"testing"
	"time"
)

// hostile is what a job's environment may hold to change other programs.
var hostile = []string{
	"LD_PRELOAD=/shared/evil.so", "LD_LIBRARY_PATH=/shared/evil", "LD_AUDIT=/shared/evil.so", "HTTPS_PROXY=http://10.97.0.9:1",
	"HTTP_PROXY=http://10.97.0.9:1", "SSL_CERT_FILE=/shared/evil.pem", "SSL_CERT_DIR=/shared/evil", "GODEBUG=evil=1", "GOTRACEBACK=crash",
	"BERTH_STORE_CONVERTER=umoci", "BERTH_LIBEXEC=/shared/evil", "HOME=/shared/evil", "PATH=/shared/evil:/usr/bin:/bin", "XDG_CONFIG_HOME=/shared/evil",
	"TMPDIR=/shared/evil", "BASH_ENV=/shared/evil.sh", "REGISTRY_AUTH_FILE=/shared/evil.json",
}

// berthProcesses prints name, uid and environment of each process of Berth's
// programs on the node, one a line.
const berthProcesses = `for p in /proc/[0-9]*; do
	cmd=$(tr '\0' ' ' <$p/cmdline) || continue
	case $cmd in /opt/berth/* | berth-create*) ;; *) continue ;; esac
	uid=$(awk '/^Uid:/{print $2}' $p/status) && env=$(tr '\0' ' ' <$p/environ) || continue
	echo "$uid|$cmd|$env"
done`

// Nothing of a job's environment reaches what root and the account run for it.
func TestEnvironments(t *testing.T) {
	s := newSite(t)
	id := s.submit(t, "-w n1 -o /shared/%j.out --export=ALL,"+strings.Join(hostile, ",")+" "+wrong("layer-stall")+" --wrap 'echo ran'")
	want := []string{"node worker", "node fetch", "node convert", "step"}
	var seen string
	until(t, 30*time.Second, "worker, fetcher, converter and helper run", func() bool {
		seen = s.With(t).MustRun(t.Context(), "n1", "root", "sh", "-c", berthProcesses)
		for _, w := range want {
			if !strings.Contains(seen, w) {
				return false
			}
		}
		return true
	})
	const fixed = "PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C "
	for line := range strings.Lines(seen) {
		parts := strings.SplitN(strings.TrimSuffix(line, "\n"), "|", 3)
		if len(parts) != 3 || parts[2] != fixed {
			t.Errorf("a process of root's or the account's has more than %q: %s", fixed, line)
		}
	}
	s.With(t).MustRun(t.Context(), "ctl", "root", "scancel", id)
	s.ended(t, id, 30*time.Second)
	s.clean(t)
	// The job itself has it all.
	r := s.as(t, "alice", "srun -N1 -w n1 --export=ALL,GODEBUG=evil=1,HTTPS_PROXY=http://10.97.0.9:1 --container-image="+tiny+" env")
	if !strings.Contains(r.Stdout, "HTTPS_PROXY=http://10.97.0.9:1\n") || !strings.Contains(r.Stdout, "GODEBUG=evil=1\n") {
		t.Errorf("%v", r)
	}
}
