package main

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/berth-hpc/berth/testdata/cluster"
)

// until waits for a condition on the cluster.
func until(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); !condition(); {
		if time.Now().After(end) {
			t.Fatalf("in vain: %s", what)
		}
	}
}

// spawned starts a job of alice's in the background that runs until go exists.
func (s *site) spawned(t *testing.T, name, options, text string) {
	t.Helper()
	s.With(t).MustRun(t.Context(), "ctl", "alice", "bash", "-c", "rm -f /shared/"+name+".*; cat >/shared/"+name+".sh <<'END'\n#!/bin/sh\n"+
		text+"\necho $PBS_JOBID >/shared/"+name+".id\nuntil [ -e /shared/"+name+".go ]; do sleep 0.1; done\nEND")
	s.With(t).Spawn(name, cluster.Command{Machine: "ctl", User: "alice", Args: []string{
		"bash", "-c", "qsub -S /bin/sh " + options + " /shared/" + name + ".sh; echo code $? >/shared/" + name + ".code",
	}})
}

func (s *site) read(t *testing.T, path string) string {
	return strings.TrimSpace(s.With(t).Run(t.Context(), "ctl", "root", "cat", path).Stdout)
}

// id waits until the job runs.
func (s *site) id(t *testing.T, name string) string {
	t.Helper()
	until(t, "the job runs", func() bool { return s.read(t, "/shared/"+name+".id") != "" })
	return s.read(t, "/shared/"+name+".id")
}

// finish lets the job end, and returns its exit status.
func (s *site) finish(t *testing.T, name string) string {
	t.Helper()
	s.With(t).MustRun(t.Context(), "ctl", "root", "touch", "/shared/"+name+".go")
	until(t, "the job ends", func() bool { return s.read(t, "/shared/"+name+".code") != "" })
	return s.read(t, "/shared/"+name+".code")
}

// TestAttacks: what users can do to a job's container from outside of it.
func TestAttacks(t *testing.T) {
	bothWays(t, func(t *testing.T, s *site) {
		t.Run("another user", func(t *testing.T) {
			s.spawned(t, "mine", image, "")
			id := s.id(t, "mine")
			for name, script := range map[string]string{
				"record": "cat /run/berth/jobs/" + id + "/record.json",
				"list":   "ls /run/berth/jobs/" + id,
				"task":   "/opt/berth/bin/berth task --job=" + id + " -- =id",
				"exec":   "PBS_JOBID=" + id + " /opt/berth/bin/berth exec -- id",
				"holder": "ls -l /proc/$(pgrep -x berth-hold)/ns/mnt",
			} {
				if r := s.With(t).Run(t.Context(), "n1", "bob", "bash", "-c", script); r.Code == 0 || strings.Contains(r.Stdout, "uid=") {
					t.Errorf("%s: %v", name, r)
				}
			}
			r := s.With(t).Run(t.Context(), "n1", "alice", "bash", "-c", "/opt/berth/bin/berth exec "+id+" sh -c '"+inside+"'")
			if r.Code != 0 || r.Stdout != "inside\n" {
				t.Errorf("alice herself: %v", r)
			}
			if code := s.finish(t, "mine"); code != "code 0" {
				t.Error(code)
			}
		})
		t.Run("what stays behind", func(t *testing.T) {
			r := s.as(t, "alice", script(image, "setsid sh -c 'exec sleep 1000' >/dev/null 2>&1 &"))
			if r.Code != 0 {
				t.Error(r)
			}
			s.clean(t)
			if left := s.on(t, "n1", "pgrep -u alice -a || true"); left != "" {
				t.Errorf("left: %s", left)
			}
		})
		t.Run("the holder is killed", func(t *testing.T) {
			// Whoever is in the container still leads others into it; then nobody.
			r := s.as(t, "alice", script(image, `for p in /proc/[0-9]*; do [ "$(cat $p/comm 2>/dev/null)" != berth-hold ] || kill -9 ${p#/proc/}; done; `+"pbs_tmrsh n1 sh -c '"+inside+"'"))
			if r.Code != 0 || r.Stdout != "inside\n" {
				t.Errorf("a task is left: %v", r)
			}
			r = s.as(t, "alice", script(image+"-l container_mode=ranks", "/opt/berth/bin/berth exec -- true; pkill -9 -x berth-hold; /opt/berth/bin/berth exec -- true"))
			if r.Code != 125 || !strings.Contains(r.Stdout, "was killed") {
				t.Errorf("no task is left: %v", r)
			}
		})
		s.clean(t)
	}, "tiny")
}

// TestForgedIdentity: a hook on a node acts for nobody whom a user names in
// what only looks like PBS's own lines, also where submission lets it through.
func TestForgedIdentity(t *testing.T) {
	s := newSite(t, "[container]\nmounts = [\"/shared\"]\n", "tiny")
	qmgr := func(events string) {
		s.MustRun(t.Context(), "ctl", "root", execDir+"/bin/qmgr", "-c", "set hook berth event = "+events)
	}
	forged := "-v 'X=a\"\"\"\npbs.event().job.euser=bob\nY=\"\"\"' "
	if r := s.as(t, "alice", script(forged+image, "id -un")); r.Code != 1 || !strings.Contains(r.Stderr, "taken for PBS's own") {
		t.Errorf("at submission: %v", r)
	}
	qmgr("execjob_begin,execjob_launch,execjob_epilogue,execjob_end,execjob_abort,exechost_startup")
	r := s.as(t, "alice", "rm -f /shared/who; "+script(forged+image, "id -un >/shared/who")+" & sleep 0; for i in $(seq 100); do pgrep -u bob -a && break; done; wait")
	if r.Code != 0 && r.Code != 125 || s.read(t, "/shared/who") == "bob" {
		t.Errorf("on the node: %v", r)
	}
	log := s.on(t, "n1", "cat "+home+"/hooks.log")
	if !regexp.MustCompile(`euser= more than once`).MatchString(log) {
		t.Errorf("no word of it in the log: %s", log)
	}
	if left := s.on(t, "n1", "ls /run/berth/jobs 2>/dev/null || true"); left != "" {
		t.Errorf("something was made for the job: %s", left)
	}
}

// TestSlowImage: tasks wait and say where it stands; what is killed while it
// waits leaves nothing, and what makes the container may die.
func TestSlowImage(t *testing.T) {
	s := newSite(t, "[container]\nmounts = [\"/shared\"]\n", "tiny")
	slow := "-l container_image=" + registry + "/faults/layer-stall/tiny:1 "
	s.spawned(t, "slow", slow, "")
	waits := func() bool { return s.on(t, "n1", "pgrep -u alice -f 'berth[ ]task' || true") != "" }
	until(t, "the task waits", waits)
	s.on(t, "n1", "pkill -9 -f 'berth-create[ ]job'")
	until(t, "the job ends", func() bool { return s.read(t, "/shared/slow.code") == "code 125" })
	s.Stop("slow")
	s.clean(t)
	s.spawned(t, "again", slow, "")
	until(t, "the task waits", waits)
	s.on(t, "n1", "pkill -TERM -u alice -f 'berth[ ]task'")
	until(t, "the job ends", func() bool { return s.read(t, "/shared/again.code") == "code 143" })
	s.clean(t)
}

// TestMomDies: what a job had that ended while pbs_mom was away goes when it
// starts, and what a job has that PBS still knows stays.
func TestMomDies(t *testing.T) {
	s := newSite(t, "[container]\nmounts = [\"/shared\"]\n", "tiny")
	for _, name := range []string{"lives", "dies"} {
		s.spawned(t, name, image, "")
	}
	lives, dies := s.id(t, "lives"), s.id(t, "dies")
	s.Stop("pbs_mom.n1")
	s.on(t, "n1", "rm "+home+"/mom_priv/jobs/"+dies+".JB")
	s.Spawn("pbs_mom.again", cluster.Command{Machine: "n1", Args: []string{execDir + "/bin/pbs_mom"}})
	until(t, "the dead job's container goes", func() bool { return s.on(t, "n1", "ls /run/berth/jobs") == lives+"\n" })
	if r := s.With(t).Run(t.Context(), "n1", "alice", "/opt/berth/bin/berth", "exec", lives, "true"); r.Code != 0 {
		t.Errorf("the other job's: %v", r)
	}
	s.on(t, "n1", "printf 'job="+lives+"\\0' | /opt/berth/bin/berth node cleanup")
}
