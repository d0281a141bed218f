package prolog

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/imagecache/store"
	"github.com/berth-hpc/berth/launcher"
	"github.com/berth-hpc/berth/prolog/jobstate"
)

func testLogger() logrus.FieldLogger {
	log := logrus.New()
	log.SetOutput(io.Discard)
	return log
}

// age makes all that a job has here so old, once its workers have ended.
func (n *node) age(job jobstate.JobID, by time.Duration) {
	n.t.Helper()
	folders, err := jobstate.Folders(n.cfg.RunDir, job)
	must(n.t, err)
	for _, f := range folders {
		eventually(n.t, "the worker ends", func() bool { return !f.Busy() })
	}
	then := time.Now().Add(-by)
	must(n.t, filepath.WalkDir(jobstate.JobDir(n.cfg.RunDir, job), func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Chtimes(path, then, then)
	}))
}

// TestReap: jobs 1 to 5 have an image. 1 is gone for the scheduler, 2 lives,
// 3 is gone but young, 4 began once more, and for 5 somebody works.
func TestReap(t *testing.T) {
	if !privateMounts(t) {
		return
	}
	n, reg := newNode(t), newRegistry(t)
	n.configure(func(c *testConfig) { c.LiveJobs = []string{"printf", `2\n77\n`} })
	var digests []string
	for job := uint32(1); job <= 5; job++ {
		image, digest := reg.push(t, "x"+string(rune('0'+job)), string(rune('0'+job)))
		r := request(job, image, digest)
		n.prepare(r)
		n.ready(r)
		digests = append(digests, digest)
		if job != 3 {
			n.age(jobstate.JobID(fmt.Sprint(job)), 6*time.Minute)
		}
		if job == 4 {
			_, err := jobstate.Create(n.cfg.RunDir, r) // as Prepare does
			must(t, err)
		}
		if job == 5 {
			lock, err := n.folder(r).TryLock()
			must(t, err)
			defer lock.Close()
		}
	}
	mounts, err := launcher.OpenMounts(t.Context(), n.cfg.RunDir)
	must(t, err)
	defer mounts.Close()
	ns, _ := userNamespace(t)
	for _, job := range []string{"1", "2"} {
		must(t, mounts.Pin(t.Context(), job, launcher.Pin{Name: "user1", NS: ns}))
	}
	reaped, err := Reap(t.Context(), n.cfg.Config)
	if err != nil || !slices.Equal(reaped, []jobstate.JobID{"1"}) {
		t.Errorf("reaped %v, %v; want 1 alone", reaped, err)
	}
	if jobs, err := jobstate.Jobs(n.cfg.RunDir); err != nil || !slices.Equal(jobs, []jobstate.JobID{"2", "3", "4", "5"}) {
		t.Errorf("left %v, %v", jobs, err)
	}
	if pinned, err := mounts.PinnedJobs(); err != nil || !slices.Equal(pinned, []string{"2"}) {
		t.Errorf("pinned %v, %v", pinned, err)
	}
	d, err := store.ParseDigest(digests[0])
	must(t, err)
	if mounted := n.mounted(); len(mounted) != 4 || slices.Contains(mounted, store.Key(d)) {
		t.Errorf("mounted %v", mounted)
	}
	// What it had goes when room is needed.
	st, err := store.OpenExisting(n.cfg.StoreDir)
	must(t, err)
	removed, err := Space(n.cfg.Config, st).Collect(t.Context(), store.Collection{UnusedFor: time.Nanosecond})
	if err != nil || len(removed) != 1 || removed[0].Digest != d {
		t.Errorf("removed %v, %v", removed, err)
	}
}

// TestReapBelievesNothingElse: unless the scheduler answers as it should, all
// stays.
func TestReapBelievesNothingElse(t *testing.T) {
	if !privateMounts(t) {
		return
	}
	n, reg := newNode(t), newRegistry(t)
	image, digest := reg.push(t, "x", "content")
	r := request(1, image, digest)
	n.prepare(r)
	n.ready(r)
	n.age("1", time.Hour)
	for _, test := range []struct {
		name    string
		command []string
		cause   string // "" for no error
	}{
		{"turned off", nil, ""},
		{"missing", []string{"no-such-squeue"}, "no-such-squeue"},
		{"fails", []string{"sh", "-c", "echo the controller is away >&2; exit 1"}, "exit status 1: the controller is away"},
		{"fails after a part", []string{"sh", "-c", "echo 2; exit 1"}, "exit status 1"},
		{"a header", []string{"printf", `JOBID\n2\n`}, `"JOBID" is not a number`},
		{"array's form", []string{"printf", `2_1\n`}, `"2_1" is not a number`},
		{"too much", []string{"sh", "-c", "yes 12345678 | head -c 17000000"}, "it prints too much"},
	} {
		t.Run(test.name, func(t *testing.T) {
			n.configure(func(c *testConfig) { c.LiveJobs = test.command })
			reaped, err := Reap(t.Context(), n.cfg.Config)
			if len(reaped) > 0 || (err != nil) != (test.cause != "") {
				t.Fatalf("reaped %v, %v", reaped, err)
			}
			if err != nil && (!strings.Contains(err.Error(), test.cause) || fault.Of(err) != fault.Site || !strings.Contains(fault.Remedy(err), "node.live_jobs")) {
				t.Errorf("%v (%s); want %s", err, fault.Remedy(err), test.cause)
			}
		})
	}
	n.configure(func(c *testConfig) { c.LiveJobs = []string{"true"} })
	if reaped, err := Reap(t.Context(), n.cfg.Config); err != nil || !slices.Equal(reaped, []jobstate.JobID{"1"}) {
		t.Errorf("no jobs at all: reaped %v, %v", reaped, err)
	}
	n.checkClean()
}

// TestLiveJobsIsAskedPlainly: what the command gets of root's surroundings.
func TestLiveJobsIsAskedPlainly(t *testing.T) {
	t.Setenv("SLURM_CONF", "/somebody's")
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	node, _, _ := strings.Cut(host, ".")
	script := `test "$1" = "-w$2" && test -z "$SLURM_CONF" && test "$(pwd)" = / && echo 7`
	live, err := liveJobs(t.Context(), []string{"sh", "-c", script, "sh", "-w%n", node})
	if err != nil || len(live) != 1 || !live["7"] {
		t.Errorf("%v, %v", live, err)
	}
}

// TestReapPBS: a job of PBS's is gone when pbs_mom has no file of it, and only
// where pbs_mom's folder can be read. Slurm's answer says nothing of it.
func TestReapPBS(t *testing.T) {
	if !privateMounts(t) {
		return
	}
	n, reg := newNode(t), newRegistry(t)
	image, digest := reg.push(t, "x", "content")
	dir := t.TempDir()
	n.configure(func(c *testConfig) { c.LiveJobs, c.PBSJobs = []string{"true"}, filepath.Join(dir, "missing") })
	ids := []jobstate.JobID{"7", "7.server", "8[2].server", "8[3].server", "9.server"}
	for _, id := range ids {
		r := jobstate.Request{Job: id, UID: 1000, GID: 1000, Image: image, Digest: digest}
		n.prepare(r)
		n.ready(r)
		if id != "9.server" {
			n.age(id, time.Hour)
		}
	}
	reaped, err := Reap(t.Context(), n.cfg.Config)
	if fault.Of(err) != fault.Site || !strings.Contains(fault.Remedy(err), "node.pbs_jobs") || !slices.Equal(reaped, ids[:1]) {
		t.Errorf("without pbs_mom's folder: reaped %v, %v", reaped, err)
	}
	for _, name := range []string{"7.server.JB", "7.server.SC", "8[3].server.JB", "8[2].server.SC"} {
		must(t, os.WriteFile(filepath.Join(dir, name), nil, 0o600))
	}
	n.configure(func(c *testConfig) { c.PBSJobs = "" })
	if reaped, err := Reap(t.Context(), n.cfg.Config); err != nil || len(reaped) > 0 {
		t.Errorf("turned off: reaped %v, %v", reaped, err)
	}
	n.configure(func(c *testConfig) { c.PBSJobs = dir })
	if reaped, err := Reap(t.Context(), n.cfg.Config); err != nil || !slices.Equal(reaped, []jobstate.JobID{"8[2].server"}) {
		t.Errorf("reaped %v, %v", reaped, err)
	}
	if reaped, err := ReapPBS(t.Context(), n.cfg.Config); err != nil || !slices.Equal(reaped, []jobstate.JobID{"9.server"}) {
		t.Errorf("when pbs_mom starts: reaped %v, %v", reaped, err)
	}
}
