package main

import (
	"strings"
	"testing"
)

// TestWarm: an administrator warms nodes by jobs of root's. One node is down: it
// is named, and the exit status tells; when it is back, it gets the rest.
func TestWarm(t *testing.T) {
	s := newSite(t, "", "tiny")
	warm := func(code int, want ...string) {
		t.Helper()
		r := s.With(t).Run(t.Context(), "ctl", "root", "sh", "-c",
			"cd /root && export PATH="+execDir+"/bin:$PATH && echo "+tiny+" | timeout 60 berth warm --scheduler pbs --nodes all -f - --keep-for 24h --spread 1ms")
		if r.Code != code {
			t.Errorf("exit status %d, want %d: %v", r.Code, code, r)
		}
		for _, line := range want {
			if !strings.Contains(r.Stdout, line+"\n") {
				t.Errorf("no line %q: %v", line, r)
			}
		}
	}
	s.Stop("pbs_mom.n2")
	warm(75, "ready     node n1", "skipped   node n2: state-unknown,down")
	s.startMom("n2")
	warm(0, "ready     node n1", "ready     node n2")
	for _, node := range []string{"n1", "n2"} {
		if out := s.on(t, node, "berth images"); !strings.Contains(out, tiny) || !strings.Contains(out, "until ") {
			t.Errorf("%s has %s", node, out)
		}
	}
	s.on(t, "ctl", "cp /var/log/registry.log /root/before")
	r := s.as(t, "alice", script(image+"-l select=2", "pbsdsh -- sh -c '"+strings.ReplaceAll(inside, "'", "")+"'"))
	if r.Code != 0 || r.Stdout != "inside\ninside\n" {
		t.Error(r)
	}
	if more := s.on(t, "ctl", "diff /root/before /var/log/registry.log | grep -c 'GET .*/blobs/' || true"); strings.TrimSpace(more) != "0" {
		t.Errorf("jobs pulled: %s blobs", more)
	}
	warm(0, "ready     node n1", "ready     node n2")
}
