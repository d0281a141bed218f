package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// lasting submits a job to n1 that touches /shared/NAME once it is in its
// container, and goes on until /shared/go exists. more are options of sbatch.
func (s *site) lasting(t *testing.T, name, more string) string {
	t.Helper()
	return s.submit(t, fmt.Sprintf("--no-requeue -w n1 -n1 -o /shared/%%A.out %s --container-image=%s --wrap 'touch /shared/up.%s.$SLURM_JOB_ID; until [ -e /shared/go ]; do sleep 0.2; done; echo survived'",
		more, tiny, name))
}

// inContainer waits until so many jobs of that name are in their containers,
// and returns their numbers, which are those of Slurm's records.
func (s *site) inContainer(t *testing.T, name string, count int) []string {
	t.Helper()
	r := s.With(t).Run(t.Context(), "ctl", "root", "timeout", "100", "sh", "-c",
		fmt.Sprintf("until [ $(ls /shared/up.%[1]s.* 2>/dev/null | wc -l) = %[2]d ]; do sleep 0.1; done; ls /shared/up.%[1]s.*", name, count))
	if r.Code != 0 {
		t.Fatalf("%s: not all of %d jobs run: %s", name, count, s.With(t).MustRun(t.Context(), "ctl", "root", "sh", "-c", "squeue; tail -n 5 /shared/*.out; ls /shared"))
	}
	var ids []string
	for _, path := range strings.Fields(r.Stdout) {
		id := path[strings.LastIndexByte(path, '.')+1:]
		ids = append(ids, id)
	}
	return ids
}

// folders lists the jobs that n1 knows.
func (s *site) folders(t *testing.T) []string {
	t.Helper()
	return strings.Fields(s.n1(t, "ls /run/berth/jobs"))
}

// TestReap: an epilog that could not run leaves a job's lease, mount, pins and
// folder. Once that is old enough, `berth node reap` and `berth gc` end it, and
// leave every job alone that Slurm has: running, suspended, of an array, and
// each part of a heterogeneous one.
func TestReap(t *testing.T) {
	s := newSite(t, withConf("KillWait=5", "PrologFlags=Alloc"))
	s.lasting(t, "lost", "")
	lost := s.inContainer(t, "lost", 1)[0]
	s.n1(t, emptyDir+"/opt/berth/bin")
	s.With(t).MustRun(t.Context(), "ctl", "alice", "touch", "/shared/go")
	if state, _ := s.ended(t, lost, 40*time.Second); state != "COMPLETED" {
		t.Errorf("the lost job: state %s", state)
	}
	s.With(t).WaitIdle()
	s.n1(t, "umount /opt/berth/bin")
	if got := s.folders(t); len(got) != 1 || got[0] != lost {
		t.Fatalf("the epilog left %v, want job %s", got, lost)
	}

	s.With(t).MustRun(t.Context(), "ctl", "root", "rm", "-f", "/shared/go")
	s.lasting(t, "array", "--array=1-2")
	suspended := s.lasting(t, "suspended", "")
	het := s.hetJob(t)
	live := append(s.inContainer(t, "array", 2), s.inContainer(t, "suspended", 1)...)
	s.inContainer(t, "het", 2)
	live = append(live, het) // the other part is on n2, and has a number of its own
	s.With(t).MustRun(t.Context(), "ctl", "root", "scontrol", "suspend", suspended)

	if out := s.n1(t, "berth node reap"); out != "" {
		t.Errorf("reaped although it is young: %s", out)
	}
	s.n1(t, "find /run/berth/jobs -exec touch -d '10 minutes ago' {} +")
	s.n1(t, "mv /etc/berth/berth.toml /tmp/good.toml; (cat /tmp/good.toml; echo; echo '[node]'; echo 'live_jobs = [\"false\"]') >/etc/berth/berth.toml")
	if r := s.With(t).Run(t.Context(), "n1", "root", "berth", "node", "reap"); r.Code != 75 || !strings.Contains(r.Stderr, "node.live_jobs") {
		t.Errorf("a scheduler that does not answer: %v", r)
	}
	s.n1(t, "mv /tmp/good.toml /etc/berth/berth.toml")
	if got := s.folders(t); len(got) != 1+len(live) {
		t.Errorf("without the scheduler's word: left %v, want %s and %v", got, lost, live)
	}

	used := s.n1(t, "berth images")
	if !strings.Contains(used, "job "+lost+", job ") {
		t.Errorf("used by: %s", used)
	}
	if out := s.n1(t, "berth node reap"); strings.TrimSpace(out) != lost {
		t.Errorf("reaped %q, want job %s alone", out, lost)
	}
	if got := s.folders(t); len(got) != len(live) {
		t.Errorf("left %v, want %v", got, live)
	}
	const onN2 = "find /run/berth/jobs -exec touch -d '10 minutes ago' {} +; berth node reap; ls /run/berth/jobs"
	if out := s.With(t).MustRun(t.Context(), "n2", "root", "sh", "-c", onN2); len(strings.Fields(out)) != 1 {
		t.Errorf("reaped and left on n2: %q, want one job alone", out)
	}
	if r := s.With(t).Run(t.Context(), "n1", "root", "berth", "rm", tiny); r.Code != 64 || !strings.Contains(r.Stderr, "it is in use by job "+live[0]) {
		t.Errorf("rm of what jobs use: %v", r)
	}
	s.n1(t, "berth gc --unused-for 1ns")

	s.With(t).MustRun(t.Context(), "ctl", "root", "scontrol", "resume", suspended)
	s.goOn(t)
	for _, id := range live {
		if state, _ := s.ended(t, id, 60*time.Second); state != "COMPLETED" {
			t.Errorf("job %s: state %s", id, state)
		}
	}
	s.clean(t)
	if out := s.n1(t, "berth gc --unused-for 1ns && ls /var/lib/berth/images/sha256"); !strings.Contains(out, ": unused\n") || strings.Contains(out, ".p1\n") {
		t.Errorf("an image that nobody needs: %s", out)
	}
	s.works(t)
}

// hetJob submits a job of two parts, to n1 and n2, and returns its number.
func (s *site) hetJob(t *testing.T) string {
	t.Helper()
	s.With(t).MustRun(t.Context(), "ctl", "alice", "sh", "-c", `cat >~/het.sh <<'END'
#!/bin/sh
srun --het-group=0,1 --container-image=`+tiny+` sh -c 'touch /shared/up.het.$(hostname); until [ -e /shared/go ]; do sleep 0.2; done'
END`)
	return s.submit(t, "--no-requeue -o /shared/het.out -w n1 -n1 : -w n2 -n1 het.sh")
}
