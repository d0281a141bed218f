package prolog

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/launcher"
	"github.com/berth-hpc/berth/prolog/jobstate"
	"golang.org/x/sys/unix"
)

func request(job uint32, image, digest string) jobstate.Request {
	return jobstate.Request{Job: jobstate.JobID(fmt.Sprint(job)), UID: 1000, GID: 1000, Image: image, Digest: digest}
}

func TestPrepareAndCleanup(t *testing.T) {
	if !privateMounts(t) {
		return
	}
	n, reg := newNode(t), newRegistry(t)
	image, digest := reg.push(t, "a/b:v1", "inside")
	cold := request(1, image, "")
	n.prepare(cold)
	got := n.ready(cold)
	if got.Digest != digest || got.Dir != n.published()[0] {
		t.Errorf("ready: %+v, want digest %s in %s", got, digest, n.published()[0])
	}
	if content := n.read(got.Mount, "hello"); content != "inside" {
		t.Errorf("the mounted image says %q", content)
	}
	before := reg.requests.Load()
	warm := request(2, image, digest)
	n.prepare(warm)
	n.ready(warm)
	if s, err := n.folder(warm).State(); err != nil || !s.Hit {
		t.Errorf("second job: %+v, %v; want a hit", s, err)
	}
	if made := reg.requests.Load() - before; made != 0 {
		t.Errorf("a pinned image that is in the store cost %d requests", made)
	}
	n.cleanup(1)
	if m := n.mounted(); len(m) != 1 || m[0] != got.Mount {
		t.Errorf("mounted while job 2 uses it: %q", m)
	}
	n.cleanup(2)
	n.cleanup(2)
	if m := n.mounted(); len(m) != 0 {
		t.Errorf("still mounted: %q", m)
	}
	n.checkClean()
}

// read reads a file of a mounted image.
func (n *node) read(mount, name string) string {
	n.t.Helper()
	m, err := launcher.OpenMounts(n.t.Context(), n.cfg.RunDir)
	must(n.t, err)
	defer m.Close()
	clone, err := m.CloneImage(mount)
	must(n.t, err)
	defer clone.Close()
	fd, err := unix.Openat(int(clone.Fd()), name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	must(n.t, err)
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	buf := make([]byte, 100)
	k, err := f.Read(buf)
	must(n.t, err)
	return string(buf[:k])
}

// checkClean fails if jobs that ended left anything.
func (n *node) checkClean() {
	n.t.Helper()
	if jobs, err := jobstate.Jobs(n.cfg.RunDir); err != nil || len(jobs) != 0 {
		n.t.Errorf("folders of jobs %v are left, %v", jobs, err)
	}
	if left, _ := filepath.Glob(filepath.Join(n.cfg.RunDir, "ended.*")); len(left) != 0 {
		n.t.Errorf("left: %q", left)
	}
	if tmp := n.storeTmp(); len(tmp) != 0 {
		n.t.Errorf("left in the store: %q", tmp)
	}
	eventually(n.t, "loop devices go", func() bool { return n.loops() == 0 })
	eventually(n.t, "processes end", func() bool { return len(n.processes()) == 0 })
}

// A registry that never answers must hold neither the prolog nor the epilog.
func TestPrepareReturnsWhileThePullHangs(t *testing.T) {
	if !privateMounts(t) {
		return
	}
	n := newNode(t)
	n.configure(func(c *testConfig) { c.PrologWait = 300 * time.Millisecond })
	silent, err := net.Listen("tcp", "127.0.0.1:0") // accepts, by its backlog, and says nothing
	must(t, err)
	defer silent.Close()
	r := request(1, silent.Addr().String()+"/a/b:v1", "")
	began := time.Now()
	n.prepare(r)
	if took := time.Since(began); took < 300*time.Millisecond || took > 5*time.Second {
		t.Errorf("prepare took %s", took)
	}
	if f := n.folder(r); !f.Busy() {
		t.Error("the worker does not go on")
	}
	eventually(t, "the fetcher starts", func() bool { return len(n.processes()) == 2 })
	w, err := n.folder(r).Worker()
	must(t, err)
	if session, err := unix.Getsid(w.PID); session != w.PID {
		t.Errorf("the worker %d is in session %d, %v: a signal to the scheduler's would reach it", w.PID, session, err)
	}
	began = time.Now()
	n.cleanup(1)
	if took := time.Since(began); took > workerGrace {
		t.Errorf("cleanup took %s", took)
	}
	n.checkClean()
}

func TestDeadline(t *testing.T) {
	if !privateMounts(t) {
		return
	}
	n, reg := newNode(t), newRegistry(t)
	image, _ := reg.push(t, "a/b:v1", "inside")
	reg.stall(isBlob)
	n.configure(func(c *testConfig) { c.PrepareDeadline = 500 * time.Millisecond })
	r := request(1, image, "")
	n.prepare(r)
	_, err := n.outcome(r)
	if err == nil || !strings.Contains(err.Error(), "gave up after 500ms") || fault.Of(err) != fault.Site {
		t.Errorf("outcome: %v, blame %v", err, fault.Of(err))
	}
	n.cleanup(1)
	n.checkClean()
}

// Any number of prepares make one worker; any number of jobs, one conversion.
func TestConcurrentPrepares(t *testing.T) {
	if !privateMounts(t) {
		return
	}
	n, reg := newNode(t), newRegistry(t)
	image, digest := reg.push(t, "a/b:v1", "inside")
	var wg sync.WaitGroup
	for i := range 12 {
		r := request(uint32(1+i%3), image, digest)
		wg.Go(func() {
			if err := Prepare(t.Context(), n.cfg.Config, bytes.NewReader(message(t, r))); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for job := range uint32(3) {
		r := request(1+job, image, digest)
		n.ready(r)
		if got := strings.Count(n.log(r), "msg=ready"); got != 1 {
			t.Errorf("job %d: %d workers\n%s", 1+job, got, n.log(r))
		}
	}
	if got := reg.getBlobs.Load(); got != 2 { // the config and one layer
		t.Errorf("%d blobs transferred, want 2", got)
	}
	if got := n.loops(); got != 1 {
		t.Errorf("%d loop devices, want 1", got)
	}
	for job := range uint32(3) {
		n.cleanup(1 + job)
	}
	n.checkClean()
}

// Two jobs wait for one image and the one that pulls is cancelled.
func TestTakeOver(t *testing.T) {
	if !privateMounts(t) {
		return
	}
	n, reg := newNode(t), newRegistry(t)
	n.configure(func(c *testConfig) { c.PrologWait = 0 })
	image, digest := reg.push(t, "a/b:v1", "inside")
	reg.stall(isBlob)
	first, second := request(1, image, digest), request(2, image, digest)
	n.prepare(first)
	eventually(t, "the first job pulls", func() bool { return reg.getBlobs.Load() > 0 })
	n.prepare(second)
	eventually(t, "the second waits for it", func() bool {
		return strings.HasPrefix(n.folder(second).Progress(), "waiting")
	})
	n.cleanup(1)
	reg.answer()
	n.ready(second)
	n.cleanup(2)
	n.checkClean()
}

// kill -9 of the worker, wherever it is: its fetcher dies with it, whoever
// waits is told, the next prepare starts over, and nothing is left.
func TestWorkerKilled(t *testing.T) {
	if !privateMounts(t) {
		return
	}
	for name, stall := range map[string]func(*http.Request) bool{"resolve": isManifest, "pull": isBlob} {
		t.Run(name, func(t *testing.T) {
			n, reg := newNode(t), newRegistry(t)
			n.configure(func(c *testConfig) { c.PrologWait = 0 })
			image, _ := reg.push(t, "a/b:v1", "inside")
			before := reg.requests.Load()
			reg.stall(stall)
			r := request(1, image, "")
			n.prepare(r)
			eventually(t, "the fetcher asks", func() bool { return reg.requests.Load() > before })
			n.kill9(r)
			eventually(t, "the fetcher dies too", func() bool { return len(n.processes()) == 0 })
			if _, err := n.outcome(r); err == nil || !strings.Contains(err.Error(), "was killed") {
				t.Errorf("outcome: %v", err)
			}
			reg.answer()
			n.prepare(r)
			n.ready(r)
			n.cleanup(1)
			n.checkClean()
		})
	}
}

// The later phases are short: kill at random moments of a whole preparation.
func TestWorkerKilledAtAnyMoment(t *testing.T) {
	if !privateMounts(t) {
		return
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	n, reg := newNode(t), newRegistry(t)
	whole := n.timePreparation(reg)
	const rounds = 15
	killed := 0
	for i := range rounds {
		image, _ := reg.push(t, "a/b:v1", strings.Repeat("x", i))
		r := request(1, image, "")
		n.configure(func(c *testConfig) { c.PrologWait = 0 })
		n.prepare(r)
		eventually(t, "the worker says who it is", func() bool { _, err := n.folder(r).Worker(); return err == nil })
		<-time.After(time.Duration(random.Int64N(int64(whole) * 3 / 2)))
		n.kill9(r)
		eventually(t, "its fetcher ends", func() bool { return len(n.processes()) == 0 })
		if _, err := n.outcome(r); err != nil {
			killed++
		}
		if i%2 == 0 { // the job goes on, or ends
			n.prepare(r)
			n.ready(r)
		}
		n.cleanup(1)
		if m := n.mounted(); len(m) != 0 {
			t.Fatalf("round %d: still mounted: %q", i, m)
		}
	}
	t.Logf("%d of %d were killed before their end; a preparation takes %s", killed, rounds, whole)
	if killed == 0 {
		t.Error("no worker was killed in time: this test proves nothing")
	}
	image, _ := reg.push(t, "a/b:v1", "last")
	r := request(1, image, "")
	n.configure(func(c *testConfig) { c.PrologWait = 30 * time.Second })
	n.prepare(r) // sweeps what the dead left in the store
	n.ready(r)
	n.cleanup(1)
	n.checkClean()
}

// timePreparation measures one from the worker's first word to its end.
func (n *node) timePreparation(reg *testRegistry) time.Duration {
	n.t.Helper()
	image, _ := reg.push(n.t, "a/b:v0", "timed")
	r := request(1, image, "")
	n.prepare(r)
	n.ready(r)
	s, err := n.folder(r).State()
	must(n.t, err)
	n.cleanup(1)
	return time.Duration(s.Seconds * float64(time.Second))
}

func (n *node) kill9(r jobstate.Request) {
	n.t.Helper()
	_, err := signalWorker(n.folder(r), unix.SIGKILL)
	must(n.t, err)
	eventually(n.t, "the worker is gone", func() bool { return !n.folder(r).Busy() })
}

// A failure is told to those who ask now, and tried again for those who come
// later.
func TestFailureIsTriedAgain(t *testing.T) {
	if !privateMounts(t) {
		return
	}
	n, reg := newNode(t), newRegistry(t)
	r := request(1, reg.host+"/no/such:v1", "")
	n.prepare(r)
	if _, err := n.outcome(r); fault.Of(err) != fault.User {
		t.Errorf("outcome: %v, blame %v", err, fault.Of(err))
	}
	before := reg.requests.Load()
	n.prepare(r)
	if made := reg.requests.Load() - before; made != 0 {
		t.Errorf("a fresh failure was tried again: %d requests", made)
	}
	eventually(t, "the worker ends", func() bool { return !n.folder(r).Busy() })
	s, err := n.folder(r).State()
	must(t, err)
	s.Time = s.Time.Add(-2 * jobstate.FreshFor)
	must(t, n.folder(r).SetState(s))
	reg.push(t, "no/such:v1", "now")
	n.prepare(r)
	n.ready(r)
	n.cleanup(1)
	n.checkClean()
}

// The helper of a step starts what the prolog did not.
func TestEnsure(t *testing.T) {
	if !privateMounts(t) {
		return
	}
	n, reg := newNode(t), newRegistry(t)
	image, _ := reg.push(t, "a/b:v1", "inside")
	reg.stall(isBlob)
	r := request(1, image, "")
	began := time.Now()
	f, err := jobstate.Ensure(t.Context(), n.cfg.Command, n.cfg.RunDir, r)
	must(t, err)
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("took %s: it waited for the image", took)
	}
	var mu sync.Mutex
	var lines []string
	go func() {
		eventually(t, "progress arrives", func() bool { mu.Lock(); defer mu.Unlock(); return len(lines) > 0 })
		reg.answer()
	}()
	_, err = f.Wait(t.Context(), func(line string) { mu.Lock(); defer mu.Unlock(); lines = append(lines, line) })
	must(t, err)
	if !f.Settled() {
		t.Error("not settled after it is ready")
	}
	n.cleanup(1)
	n.checkClean()
}
