package e2e

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/berth-hpc/berth/testdata/cluster"
)

// What TestLongPull sets in slurm.conf, in seconds. A requeued job waits for
// as long as credentials live, by default two minutes.
const (
	killWait   = 20
	credExpire = 15
)

// A jobWatch asks for all jobs at once, for many tests that wait in parallel.
type jobWatch struct {
	mu   sync.Mutex
	jobs map[string]map[string]string // id -> field -> value
}

func (s *site) watchJobs(t *testing.T) *jobWatch {
	t.Helper()
	w := &jobWatch{}
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(250 * time.Millisecond)
		defer tick.Stop()
		for {
			w.update(s.Run(t.Context(), "ctl", "root", "scontrol", "-o", "show", "job").Stdout)
			select {
			case <-stop:
				return
			case <-tick.C:
			}
		}
	}()
	t.Cleanup(func() { close(stop); <-done })
	return w
}

func (w *jobWatch) update(text string) {
	jobs := map[string]map[string]string{}
	for line := range strings.Lines(text) {
		fields := map[string]string{}
		for _, word := range strings.Fields(line) {
			if key, value, ok := strings.Cut(word, "="); ok && fields[key] == "" {
				fields[key] = value
			}
		}
		jobs[fields["JobId"]] = fields
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.jobs = jobs
}

func (w *jobWatch) field(id, name string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.jobs[id][name]
}

// reaches waits until the job is in one of these states.
func (w *jobWatch) reaches(t *testing.T, id string, limit time.Duration, states ...string) string {
	t.Helper()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(limit)
	for {
		now := w.field(id, "JobState")
		for _, want := range states {
			if now == want {
				return now
			}
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("job %s is %s, not %v within %v", id, now, states, limit)
		}
	}
}

// soon receives from an event that must come.
func soon(t *testing.T, event <-chan struct{}, limit time.Duration, what string) {
	t.Helper()
	select {
	case <-event:
	case <-time.After(slack * limit):
		t.Fatalf("not within %v: %s", slack*limit, what)
	}
}

// A longPull is what the rows of TestLongPull share.
type longPull struct {
	*site
	registry *trickling
	jobs     *jobWatch
}

func (p *longPull) submitImage(t *testing.T, image, options string) string {
	t.Helper()
	return p.submit(t, "-o /shared/pull.%j.out --container-image="+image+" "+options+" --wrap 'echo ran'")
}

func (p *longPull) output(t *testing.T, id string) string {
	t.Helper()
	return p.With(t).MustRun(t.Context(), "ctl", "root", "cat", "/shared/pull."+id+".out")
}

func (p *longPull) cancel(t *testing.T, id string) {
	t.Helper()
	p.With(t).MustRun(t.Context(), "ctl", "alice", "scancel", id)
}

// completed asserts that the job runs in its image at last, once.
func (p *longPull) completed(t *testing.T, id string, limit time.Duration) {
	t.Helper()
	state := p.jobs.reaches(t, id, slack*limit, "COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")
	if out := p.output(t, id); state != "COMPLETED" || strings.Count(out, "ran\n") != 1 {
		t.Errorf("job %s is %s and printed %q", id, state, out)
	}
}

// TestLongPull: a pull of 90 s with a prolog that may take 30 s, as seen by
// the job and by whoever ends the job meanwhile. The rows wait in parallel.
func TestLongPull(t *testing.T) {
	config := fmt.Sprintf("[registry.%q]\ninsecure = true\n[container]\n", trickle)
	s := newSite(t, withConfig(config), withConf(
		"PrologEpilogTimeout=30", "PrologFlags=Alloc",
		fmt.Sprintf("KillWait=%d", killWait), fmt.Sprintf("AuthInfo=cred_expire=%d", credExpire)))
	p := &longPull{site: s, registry: s.startTrickling(t), jobs: s.watchJobs(t)}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	moment := func(limit time.Duration) time.Duration { return time.Duration(random.Float64() * float64(limit)) }

	// Not t.Parallel, which runs only as many as there are processors.
	var rows sync.WaitGroup
	row := func(name string, f func(t *testing.T)) { rows.Go(func() { t.Run(name, f) }) }
	row("the job runs", p.runsAtLast)
	row("time limit", p.timeLimit)
	requeueAfter := moment(10 * time.Second)
	row("requeue", func(t *testing.T) { p.requeue(t, requeueAfter) })
	row("the job that pulls is cancelled", func(t *testing.T) { p.oneOfTwo(t, 0) })
	row("the job that waits is cancelled", func(t *testing.T) { p.oneOfTwo(t, 1) })
	image, _ := p.registry.image(t, "cancelled", time.Minute)
	// One at once, while the prolog may still run; the others anywhere.
	for i, after := range []time.Duration{0, moment(5 * time.Second), moment(50 * time.Second), moment(50 * time.Second), moment(50 * time.Second), moment(50 * time.Second)} {
		options := []string{"-w n2", "-N3"}[i%2]
		row(fmt.Sprintf("scancel %s after %.2f s", options, after.Seconds()), func(t *testing.T) {
			p.cancelled(t, image, options, after)
		})
	}
	srunAfter := time.Second + moment(40*time.Second)
	row("scancel of srun", func(t *testing.T) { p.srunCancelled(t, image, srunAfter) })
	rows.Wait()
	s.idle(t)
}

func (p *longPull) runsAtLast(t *testing.T) {
	image, blob := p.registry.image(t, "ninety", 90*time.Second)
	begin := time.Now()
	id := p.submitImage(t, image, "-w n1")
	p.completed(t, id, 2*time.Minute)
	if took := time.Since(begin); took < blob.over {
		t.Errorf("the pull took %v: this row shows nothing", took)
	}
	if lines := strings.Count(p.output(t, id), "berth: getting "+image); lines < 5 {
		t.Errorf("%d lines of progress in 90 s: %q", lines, p.output(t, id))
	}
}

func (p *longPull) timeLimit(t *testing.T) {
	image, _ := p.registry.image(t, "limited", 5*time.Minute)
	id := p.submitImage(t, image, "-w n3 -t 1")
	p.jobs.reaches(t, id, 110*time.Second, "TIMEOUT")
	if out := p.output(t, id); strings.Contains(out, "ran\n") {
		t.Errorf("it ran: %q", out)
	}
}

// cancelled measures from scancel to the end of the job's epilog.
func (p *longPull) cancelled(t *testing.T, image, options string, after time.Duration) {
	id := p.submitImage(t, image, options)
	if after > 0 {
		p.jobs.reaches(t, id, slack*20*time.Second, "RUNNING")
	}
	<-time.After(after)
	p.cancel(t, id)
	begin := time.Now()
	p.jobs.reaches(t, id, killWait*time.Second, "CANCELLED")
	t.Logf("ended %.1f s after scancel", time.Since(begin).Seconds())
}

// srunCancelled measures until srun is back at the user's prompt.
func (p *longPull) srunCancelled(t *testing.T, image string, after time.Duration) {
	back := make(chan cluster.Result, 1)
	go func() { back <- p.as(t, "alice", "srun -J prompt -w n2 --container-image="+image+" echo ran") }()
	<-time.After(after)
	p.With(t).MustRun(t.Context(), "ctl", "alice", "scancel", "-n", "prompt")
	select {
	case r := <-back:
		if r.Code == 0 || strings.Contains(r.Stdout, "ran") {
			t.Errorf("%.2f s after its start: %v", after.Seconds(), r)
		}
	case <-time.After(killWait * time.Second):
		t.Errorf("srun is not back %d s after scancel, %.2f s after its start", killWait, after.Seconds())
		<-back
	}
}

func (p *longPull) requeue(t *testing.T, after time.Duration) {
	image, blob := p.registry.image(t, "requeued", 15*time.Second)
	id := p.submitImage(t, image, "-w n3")
	soon(t, blob.begun, 30*time.Second, "the pull begins")
	<-time.After(after)
	p.With(t).MustRun(t.Context(), "ctl", "root", "scontrol", "requeue", id)
	p.jobs.reaches(t, id, killWait*time.Second, "PENDING")
	// Slurm starts it again when no credential of the first start is valid.
	p.completed(t, id, (credExpire+45)*time.Second)
	if n := p.jobs.field(id, "Restarts"); n != "1" {
		t.Errorf("%s restarts", n)
	}
}

// oneOfTwo cancels one of two jobs that want the same image, the first of
// which pulls it. The other gets it, and it is converted once: nobody can
// convert what did not arrive whole.
func (p *longPull) oneOfTwo(t *testing.T, victim int) {
	image, blob := p.registry.image(t, fmt.Sprintf("shared%d", victim), 20*time.Second)
	ids := []string{p.submitImage(t, image, "-w n3")}
	soon(t, blob.begun, 30*time.Second, "the pull begins")
	ids = append(ids, p.submitImage(t, image, "-w n3"))
	p.jobs.reaches(t, ids[1], 10*time.Second, "RUNNING")
	p.cancel(t, ids[victim])
	p.jobs.reaches(t, ids[victim], killWait*time.Second, "CANCELLED")
	p.completed(t, ids[1-victim], 45*time.Second)
	if count, whole := p.registry.transfers(blob); whole != 1 || count != 2-victim {
		t.Errorf("the layer was asked for %d times and arrived %d times", count, whole)
	}
}
