package e2e

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/berth-hpc/berth/testdata/images"
	"github.com/berth-hpc/berth/testdata/registry/server"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/sys/unix"
)

// trickle is the address of a registry whose images take as long to pull as
// the test wants, and that never stalls.
const trickle = "10.97.0.1:5002"

// What TestLongPull sets in slurm.conf, in seconds. A requeued job waits for
// as long as credentials live, by default two minutes.
const (
	killWait   = 5
	credExpire = 15
)

// A trickling registry lives in the test's own process.
type trickling struct {
	reg *server.Started

	mu    sync.Mutex
	blobs map[string]*trickled // by digest
}

// A trickled blob is sent at a steady pace.
type trickled struct {
	data  []byte
	over  time.Duration // how long one transfer takes
	begun chan struct{} // closed when the first transfer begins
	once  sync.Once
	count int // transfers that began
	whole int // transfers that came to their end
}

func (s *site) startTrickling(t *testing.T) *trickling {
	t.Helper()
	r := &trickling{blobs: map[string]*trickled{}}
	r.reg = server.Start(t, server.Options{Wrap: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if blob := r.blob(path.Base(req.URL.Path)); blob != nil && req.Method == http.MethodGet {
				r.send(w, req, blob)
				return
			}
			next.ServeHTTP(w, req)
		})
	}})
	srv := &http.Server{Handler: r.reg, ReadHeaderTimeout: 10 * time.Second}
	listener := s.listen(t, "ctl", trickle)
	go func() { _ = srv.Serve(listener) }()
	t.Cleanup(func() { _ = srv.Close() })
	return r
}

// listen opens a socket in the network of one of the cluster's machines.
func (s *site) listen(t *testing.T, machine, address string) net.Listener {
	t.Helper()
	pid, err := os.ReadFile(filepath.Join(s.Dir, "machines", machine, "pid"))
	if err != nil {
		t.Fatal(err)
	}
	network := func(process string) int {
		fd, err := unix.Open("/proc/"+process+"/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		return fd
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	own, theirs := network("thread-self"), network(strings.Fields(string(pid))[0])
	defer unix.Close(own)
	defer unix.Close(theirs)
	if err := unix.Setns(theirs, unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", address)
	if back := unix.Setns(own, unix.CLONE_NEWNET); back != nil {
		t.Fatal(back)
	}
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func (r *trickling) blob(digest string) *trickled {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.blobs[digest]
}

func (r *trickling) send(w http.ResponseWriter, req *http.Request, b *trickled) {
	r.mu.Lock()
	b.count++
	r.mu.Unlock()
	b.once.Do(func() { close(b.begun) })
	w.Header().Set("Content-Length", fmt.Sprint(len(b.data)))
	const steps = 200
	tick := time.NewTicker(b.over / steps)
	defer tick.Stop()
	for i := range steps {
		select {
		case <-req.Context().Done():
			return
		case <-tick.C:
		}
		piece := b.data[len(b.data)*i/steps : len(b.data)*(i+1)/steps]
		if _, err := w.Write(piece); err != nil {
			return
		}
		_ = http.NewResponseController(w).Flush()
	}
	r.mu.Lock()
	b.whole++
	r.mu.Unlock()
}

// transfers says how often a blob was asked for, and sent to its end.
func (r *trickling) transfers(b *trickled) (count, whole int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return b.count, b.whole
}

// image publishes tiny with a layer that takes so long, and returns its name.
func (r *trickling) image(t *testing.T, name string, over time.Duration) (string, *trickled) {
	t.Helper()
	base, err := images.ReadLayout(images.Layout(t, "tiny"), images.Tag)
	if err != nil {
		t.Fatal(err)
	}
	layer := static.NewLayer(tarOf(t, name), types.OCIUncompressedLayer)
	img, err := mutate.AppendLayers(base, layer)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := images.Push(t.Context(), r.reg.Host, name+":1", img); err != nil {
		t.Fatal(err)
	}
	digest, err := layer.Digest()
	if err != nil {
		t.Fatal(err)
	}
	blob := &trickled{data: tarOf(t, name), over: over, begun: make(chan struct{})}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.blobs[digest.String()] = blob
	return trickle + "/" + name + ":1", blob
}

// tarOf is a layer of half a megabyte that no other name has.
func tarOf(t *testing.T, name string) []byte {
	t.Helper()
	img, err := images.FromFiles(v1.Config{}, []images.File{images.Text("share/"+name, strings.Repeat(name+"\n", 1<<19/(len(name)+1)))})
	if err != nil {
		t.Fatal(err)
	}
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	body, err := layers[0].Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	var data bytes.Buffer
	if _, err := data.ReadFrom(body); err != nil {
		t.Fatal(err)
	}
	return data.Bytes()
}

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
	case <-time.After(limit):
		t.Fatalf("not within %v: %s", limit, what)
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
	state := p.jobs.reaches(t, id, limit, "COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")
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
		p.jobs.reaches(t, id, 20*time.Second, "RUNNING")
	}
	<-time.After(after)
	p.cancel(t, id)
	begin := time.Now()
	p.jobs.reaches(t, id, killWait*time.Second, "CANCELLED")
	t.Logf("ended %.1f s after scancel", time.Since(begin).Seconds())
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
