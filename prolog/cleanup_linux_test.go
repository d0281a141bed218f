package prolog

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/berth-hpc/berth/imagecache"
	"github.com/sirupsen/logrus"

	"github.com/berth-hpc/berth/imagecache/store"
	"github.com/berth-hpc/berth/launcher"
	"github.com/berth-hpc/berth/prolog/jobstate"
	"golang.org/x/sys/unix"
)

// Another process may have the number of a worker that is gone.
func TestForeignProcessIsNotSignalled(t *testing.T) {
	sleep := exec.Command("sleep", "60")
	must(t, sleep.Start())
	defer func() { _ = sleep.Process.Kill(); _ = sleep.Wait() }()
	f, err := jobstate.Create(t.TempDir(), request(1, "x", ""))
	must(t, err)
	start, err := store.ProcessStart(sleep.Process.Pid)
	must(t, err)
	must(t, f.SetWorker(jobstate.Worker{PID: sleep.Process.Pid, Start: start - 1}))
	_, err = signalWorker(f, unix.SIGKILL)
	must(t, err)
	must(t, f.SetWorker(jobstate.Worker{PID: sleep.Process.Pid, Start: start}))
	_, err = signalWorker(f, unix.SIGTERM)
	must(t, err)
	var exit *exec.ExitError
	if err := sleep.Wait(); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != unix.SIGTERM {
		t.Errorf("want an end by the second signal, which was meant for it: %v", err)
	}
}

// A worker that ignores the request to end is killed.
func TestStubbornWorker(t *testing.T) {
	f, err := jobstate.Create(t.TempDir(), request(1, "x", ""))
	must(t, err)
	lock, err := f.TryLock()
	must(t, err)
	cmd := exec.Command("sh", "-c", `trap "" TERM; echo ready; sleep 60 3>&- & wait; wait`)
	cmd.ExtraFiles = []*os.File{lock}
	cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true}
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	lock.Close()
	defer func() { _ = unix.Kill(-cmd.Process.Pid, unix.SIGKILL); _ = cmd.Wait() }()
	_, err = out.Read(make([]byte, 8))
	must(t, err)
	start, err := store.ProcessStart(cmd.Process.Pid)
	must(t, err)
	must(t, f.SetWorker(jobstate.Worker{PID: cmd.Process.Pid, Start: start}))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	must(t, stopWorker(ctx, f))
}

func TestCleanupOfNothing(t *testing.T) {
	cfg := Config{RunDir: filepath.Join(t.TempDir(), "berth")}
	must(t, Cleanup(t.Context(), cfg, strings.NewReader("job=17\x00")))
	if _, err := os.Stat(cfg.RunDir); err == nil {
		t.Error("an epilog without containers made a run folder")
	}
	for _, bad := range []string{"", "job=\x00", "job=../x\x00", "job=1\x00job=2\x00", "job=1"} {
		if err := Cleanup(t.Context(), cfg, strings.NewReader(bad)); err == nil {
			t.Errorf("accepted %q", bad)
		}
	}
}

func TestStatus(t *testing.T) {
	run := t.TempDir()
	f, err := jobstate.Create(run, request(7, "x", ""))
	must(t, err)
	must(t, f.SetProgress("converting x"))
	got, err := Status(Config{RunDir: run})
	must(t, err)
	if len(got) != 1 || got[0].Job != "7" || got[0].Busy || got[0].State != nil || got[0].Progress != "converting x" {
		data, _ := json.Marshal(got)
		t.Errorf("%s", data)
	}
}

// TestForgottenPins: the next job's cleanup ends what a job pinned whose own
// cleanup never ran, and leaves the pins of jobs that live.
func TestForgottenPins(t *testing.T) {
	if !privateMounts(t) {
		return
	}
	n, reg := newNode(t), newRegistry(t)
	image, digest := reg.push(t, "x", "content")
	for _, job := range []uint32{1, 3} {
		r := request(job, image, digest)
		n.prepare(r)
		n.ready(r)
	}
	mounts, err := launcher.OpenMounts(t.Context(), n.cfg.RunDir)
	must(t, err)
	defer mounts.Close()
	ns, _ := userNamespace(t)
	for _, job := range []string{"1", "2", "3"} { // 2 has no folder
		must(t, mounts.Pin(t.Context(), job, launcher.Pin{Name: "user1", NS: ns}))
	}
	n.cleanup(1)
	if jobs, err := mounts.PinnedJobs(); err != nil || len(jobs) != 1 || jobs[0] != "3" {
		t.Errorf("pinned: %q, %v; want those of job 3 alone", jobs, err)
	}
	n.cleanup(3)
	n.checkClean()
}

// A job that ends while its image is on its way leaves nothing, whichever of
// the processes waits for which.
func TestCleanupWhileLayersAreConverted(t *testing.T) {
	if !privateMounts(t) {
		return
	}
	n, reg := newNode(t), newRegistry(t)
	image, digest := reg.push(t, "a/b:v1", "inside")
	var blobs atomic.Int32
	reg.stall(func(r *http.Request) bool { return isBlob(r) && blobs.Add(1) == 2 }) // the config comes before the layer
	n.configure(func(c *testConfig) { c.PrologWait = 10 * time.Millisecond })
	r := request(1, image, digest)
	n.prepare(r)
	eventually(t, "the layer is on its way", func() bool { return blobs.Load() == 2 })
	if running := n.processes(); len(running) != 3 {
		t.Errorf("worker, fetcher and converter are %q", running)
	}
	began := time.Now()
	n.cleanup(1)
	if took := time.Since(began); took > workerGrace {
		t.Errorf("cleanup took %s", took)
	}
	n.checkClean()
}

// A transfer that stands still after its first bytes has said how many came.
func TestLastWordIsTold(t *testing.T) {
	f, err := jobstate.Create(t.TempDir(), request(1, "x", ""))
	must(t, err)
	w := &worker{folder: f, req: request(1, "x", ""), log: logrus.New()}
	stop := w.keepTelling()
	defer stop()
	for _, p := range []imagecache.Progress{{Layer: 1, Total: 1e6}, {Layer: 2, Total: 1e6}, {Layer: 1, Done: 6e5, Total: 1e6}} {
		p.Phase, p.Layers = imagecache.PhasePull, 2
		w.say(p)
	}
	eventually(t, "what arrived is told", func() bool { return strings.Contains(f.Progress(), "0 of 2 layers, 0.6 of 2.0 MB") })
}
