package e2e

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/berth-hpc/berth/imagecache/inflate"
	imagestore "github.com/berth-hpc/berth/imagecache/store"
	"github.com/berth-hpc/berth/simulate"
	"github.com/berth-hpc/berth/testdata/cluster"
	"github.com/berth-hpc/berth/testdata/images"
)

var (
	predictOut    = flag.String("predict.out", "", "a folder for what TestPredictions measures; without it the test is skipped")
	predictRounds = flag.Int("predict.rounds", 3, "how often it starts everything")
	predictFrom   = flag.String("predict.from", "", "a scale.json of an earlier run, whose starts are not measured again")
	predictMirror = flag.String("predict.mirror", "", "Docker's registry, the program; without it mirrors are left out")
)

const (
	slowRegistry = "10.97.0.1:5003"
	slowMirror   = "10.97.0.1:5004"
	tolerance    = 0.20
)

// A scenario is one kind of start.
type scenario struct {
	Image     string          `json:"image"`
	Layout    simulate.Layout `json:"layout"`
	Nodes     int             `json:"nodes"`
	Bandwidth float64         `json:"bandwidth"` // of the registry, bytes per second; 0 is no limit
}

func (s scenario) String() string {
	limit := "no limit"
	if s.Bandwidth > 0 {
		limit = fmt.Sprintf("%.0f MB/s", s.Bandwidth/1e6)
	}
	return fmt.Sprintf("%s, %s, %d nodes, %s", s.Image, s.Layout, s.Nodes, limit)
}

// A start is what one came to: medians over rounds.
type start struct {
	scenario
	Median   float64   `json:"median_s"` // until half of the nodes ran their task
	Last     float64   `json:"last_s"`
	CPU      float64   `json:"cpu_s"`
	Requests int       `json:"requests"` // of the nodes, to whom they ask
	Upstream int64     `json:"upstream_bytes"`
	Rounds   []float64 `json:"-"` // of Last
}

// fitted are the starts to which the costs are fitted, predicted those that are
// compared with predictions.
func fitted() []scenario {
	var all []scenario
	for _, n := range []int{1, 2} {
		for _, image := range []string{"tiny", "bio", "mpi"} {
			all = append(all, scenario{image, simulate.NodeStores, n, 0})
		}
		all = append(all, scenario{"bio", simulate.NodeStores, n, 25e6}, scenario{"mpi", simulate.ClusterCopy, n, 0}, scenario{"mpi", simulate.ClusterMount, n, 0})
	}
	return all
}

func predicted(mirror bool) []scenario {
	var all []scenario
	for _, n := range []int{3, 4, 8, 16} {
		all = append(all, scenario{"bio", simulate.NodeStores, n, 25e6}, scenario{"mpi", simulate.NodeStores, n, 25e6},
			scenario{"mpi", simulate.ClusterCopy, n, 5e6}, scenario{"mpi", simulate.ClusterMount, n, 5e6})
		if mirror {
			all = append(all, scenario{"bio", simulate.Mirror, n, 25e6})
		}
	}
	return all
}

// unbound are starts that nothing but this machine's processors and its one disk
// bind, which real nodes do not share: they are shown, and judge nothing.
func unbound() []scenario {
	var all []scenario
	for _, n := range []int{3, 4, 8, 16} {
		all = append(all, scenario{"bio", simulate.NodeStores, n, 0}, scenario{"mpi", simulate.ClusterCopy, n, 0})
	}
	return all
}

// TestPredictions fits the costs of package simulate to starts on one and two
// nodes, and compares its predictions with starts on three to sixteen. It is
// part of make bench, for a machine that does nothing else.
func TestPredictions(t *testing.T) {
	if *predictOut == "" {
		t.Skip("part of make bench: -predict.out DIR")
	}
	p := &prediction{images: map[string]simulate.Image{}, rounds: map[scenario][]start{}}
	training, rest, shown := fitted(), predicted(*predictMirror != ""), unbound()
	if *predictFrom != "" {
		p.read(t)
	}
	known := func(sh scenario) bool { return len(p.rounds[sh]) > 0 }
	if missing := slices.DeleteFunc(slices.Concat(training, rest, shown), known); len(missing) > 0 {
		p.measure(t, missing)
	}
	p.report(t, p.fit(t, training), training, rest, shown)
}

// measure starts everything on a site of its own.
func (p *prediction) measure(t *testing.T, all []scenario) {
	t.Helper()
	var options []option
	if *predictMirror != "" {
		options = append(options, func(s *setup) {
			s.Cluster.ReadOnlyBind = append(s.Cluster.ReadOnlyBind, filepath.Dir(*predictMirror)+":/opt/mirror")
		})
	}
	p.site, _ = clusterSite(t, "copy", true, append(options, withNodes(manyNodes), withImages("bio", "mpi"))...)
	for round := range *predictRounds {
		for _, sh := range all {
			r := p.run(t, sh)
			t.Logf("round %d: %v: median %.2f s, last %.2f s, %.2f CPU s, %d requests, %d bytes upstream", round, sh, r.Median, r.Last, r.CPU, r.Requests, r.Upstream)
			p.rounds[sh] = append(p.rounds[sh], r)
		}
		p.write(t)
	}
}

// A recording is scale.json.
type recording struct {
	Load   string                    `json:"load_at_the_end"`
	Images map[string]simulate.Image `json:"images"`
	Starts []start                   `json:"starts"`
}

// write leaves what was measured so far.
func (p *prediction) write(t *testing.T) {
	t.Helper()
	load, _ := os.ReadFile("/proc/loadavg")
	out := recording{Load: string(load), Images: p.images}
	for _, rounds := range p.rounds {
		out.Starts = append(out.Starts, rounds...)
	}
	writeJSON(t, filepath.Join(*predictOut, "scale.json"), out)
}

// read takes the starts of an earlier run.
func (p *prediction) read(t *testing.T) {
	t.Helper()
	data, err := os.ReadFile(*predictFrom)
	if err != nil {
		t.Fatal(err)
	}
	var in recording
	if err := json.Unmarshal(data, &in); err != nil {
		t.Fatal(err)
	}
	p.images = in.Images
	for _, r := range in.Starts {
		p.rounds[r.scenario] = append(p.rounds[r.scenario], r)
	}
}

// A prediction is one run of the test.
type prediction struct {
	site      *site
	images    map[string]simulate.Image
	rounds    map[scenario][]start
	bandwidth float64 // of the registry that runs
	running   bool
}

// run starts sh on nodes that have nothing.
func (p *prediction) run(t *testing.T, sh scenario) start {
	t.Helper()
	s := p.site
	s.With(t).WaitIdle()
	p.serve(t, sh)
	p.configure(t, sh)
	all := []string{"ctl"}
	for i := range manyNodes {
		all = append(all, fmt.Sprint("n", i+1))
	}
	cpu := s.cpuOf(t, all)
	script := fmt.Sprintf("cd ~; rm -rf .cache; : >/shared/requests; cut -d' ' -f1 /proc/uptime; "+
		"srun -N%d --container-image=%s/%s:1 cut -d' ' -f1 /proc/uptime", sh.Nodes, slowRegistry, sh.Image)
	r := s.With(t).Do(t.Context(), cluster.Command{Machine: "ctl", User: "alice", Args: []string{"bash", "-c", script}, Timeout: 5 * time.Minute})
	if r.Code != 0 {
		t.Fatalf("%v: %v", sh, r)
	}
	var times []float64
	for _, field := range strings.Fields(r.Stdout) {
		var x float64
		if _, err := fmt.Sscan(field, &x); err != nil {
			t.Fatal(err)
		}
		times = append(times, x)
	}
	if len(times) != sh.Nodes+1 {
		t.Fatalf("%v: %v", sh, r)
	}
	s.With(t).WaitIdle()
	begun := times[0]
	times = times[1:]
	slices.Sort(times)
	out := start{scenario: sh, Median: times[(len(times)-1)/2] - begun, Last: times[len(times)-1] - begun, CPU: s.cpuOf(t, all) - cpu}
	out.Requests, out.Upstream = p.traffic(t, sh)
	p.learn(t, sh)
	return out
}

// serve has the registry run with sh's bandwidth, and a mirror that is empty.
func (p *prediction) serve(t *testing.T, sh scenario) {
	t.Helper()
	s := p.site.With(t)
	if !p.running || p.bandwidth != sh.Bandwidth {
		if p.running {
			s.Stop("slow")
		}
		s.MustRun(t.Context(), "ctl", "root", "rm", "-f", "/run/slow.ready")
		s.Spawn("slow", cluster.Command{Machine: "ctl", Args: []string{
			"test-registry", "--listen", slowRegistry, "--dir", "/var/lib/slow", "--log", "/var/log/slow.log",
			"--ready-file", "/run/slow.ready", "--bandwidth", fmt.Sprint(int64(sh.Bandwidth)),
		}})
		p.ready(t, "until [ -s /run/slow.ready ]; do sleep 0.05; done")
		if !p.running {
			s.MustRun(t.Context(), "ctl", "root", "test-images", "push", "--registry", slowRegistry, "tiny:1", "bio:1", "mpi:1")
		}
		p.running, p.bandwidth = true, sh.Bandwidth
	}
	if sh.Layout == simulate.Mirror {
		config := fmt.Sprintf("version: 0.1\nlog: {accesslog: {disabled: true}, level: error}\nstorage: {filesystem: {rootdirectory: /var/lib/mirror}}\nhttp: {addr: %q}\nproxy: {remoteurl: \"http://%s\"}\n", slowMirror, slowRegistry)
		s.MustRun(t.Context(), "ctl", "root", "sh", "-c", "rm -rf /var/lib/mirror; cat >/etc/mirror.yml <<'EOF'\n"+config+"EOF\n")
		s.Spawn("mirror", cluster.Command{Machine: "ctl", Args: []string{"/opt/mirror/" + filepath.Base(*predictMirror), "serve", "/etc/mirror.yml"}})
		p.ready(t, "until (exec 3<>/dev/tcp/"+strings.Replace(slowMirror, ":", "/", 1)+") 2>/dev/null; do sleep 0.05; done")
	}
	s.MustRun(t.Context(), "ctl", "root", "sh", "-c", ": >/var/log/slow.log")
}

func (p *prediction) ready(t *testing.T, script string) {
	t.Helper()
	p.site.With(t).MustRun(t.Context(), "ctl", "root", "timeout", "100", "bash", "-c", script)
}

// configure gives all machines the settings of sh's layout and empties stores.
func (p *prediction) configure(t *testing.T, sh scenario) {
	t.Helper()
	config := fmt.Sprintf("[registry.%q]\ninsecure = true\n", slowRegistry)
	switch sh.Layout {
	case simulate.Mirror:
		config += fmt.Sprintf("mirrors = [%q]\n[registry.%q]\ninsecure = true\n", slowMirror, slowMirror)
	case simulate.ClusterCopy, simulate.ClusterMount:
		use := map[simulate.Layout]string{simulate.ClusterCopy: "copy", simulate.ClusterMount: "mount"}[sh.Layout]
		config += fmt.Sprintf("[cluster]\ndir = %q\nuse = %q\n", sharedStore, use)
	}
	for i := range manyNodes {
		p.site.With(t).MustRun(t.Context(), fmt.Sprint("n", i+1), "root", "sh", "-c",
			"rm -rf /var/lib/berth/images/sha256/*; cat >/etc/berth/berth.toml <<'EOF'\n"+config+"EOF\n")
	}
	p.site.With(t).MustRun(t.Context(), "ctl", "root", "sh", "-c",
		"rm -rf "+sharedStore+"/* ; sync; cat >/etc/berth/berth.toml <<'EOF'\n"+fmt.Sprintf("[registry.%q]\ninsecure = true\n", slowRegistry)+"EOF\n")
}

// traffic reads the registry's log: requests, but for the one at submission, and
// bytes of layers.
func (p *prediction) traffic(t *testing.T, sh scenario) (requests int, bytes int64) {
	t.Helper()
	if sh.Layout == simulate.Mirror {
		p.site.With(t).Stop("mirror")
	}
	text, err := os.ReadFile(filepath.Join(p.site.Dir, "machines/ctl/root/var/log/slow.log"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		var method, path string
		var status int
		var n int64
		if _, err := fmt.Sscan(line, &method, &path, &status, &n); err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(path, "/manifests/1") { // by the tag: at submission
			continue
		}
		requests++
		if strings.Contains(path, "/blobs/") && method == "GET" && n > 100 {
			bytes += n
		}
	}
	return requests, bytes
}

// learn reads an image's sizes in its record.
func (p *prediction) learn(t *testing.T, sh scenario) {
	t.Helper()
	if _, ok := p.images[sh.Image]; ok {
		return
	}
	names, err := filepath.Glob(filepath.Join(p.site.Dir, "machines/n1/root/var/lib/berth/images/sha256/*/record.json"))
	if err != nil || len(names) == 0 {
		t.Fatal(err, names)
	}
	text, err := os.ReadFile(names[0])
	if err != nil {
		t.Fatal(err)
	}
	var record imagestore.Record
	if err := json.Unmarshal(text, &record); err != nil {
		t.Fatal(err)
	}
	p.images[sh.Image] = simulate.Image{Compressed: record.Compressed, Squashed: record.Squashed, Layers: record.Layers}
}

// measured is the median over rounds.
func (p *prediction) measured(sh scenario) start {
	rounds := p.rounds[sh]
	middle := func(value func(start) float64) float64 {
		var all []float64
		for _, r := range rounds {
			all = append(all, value(r))
		}
		slices.Sort(all)
		return (all[len(all)/2] + all[(len(all)-1)/2]) / 2
	}
	m := start{scenario: sh, Requests: rounds[0].Requests, Upstream: rounds[0].Upstream}
	for _, r := range rounds {
		if r.Requests != m.Requests {
			m.Requests = -1 // not the same in all
		}
	}
	m.Median = middle(func(s start) float64 { return s.Median })
	m.Last = middle(func(s start) float64 { return s.Last })
	m.CPU = middle(func(s start) float64 { return s.CPU })
	for _, r := range rounds {
		m.Rounds = append(m.Rounds, r.Last)
	}
	return m
}

// predict is the median over the simulator's dice.
func (p *prediction) predict(sh scenario, costs simulate.Costs) simulate.Result {
	site := simulate.DefaultSite()
	site.Registry = simulate.Server{Bandwidth: sh.Bandwidth}
	site.Mirror.Server, site.Mirror.Relays = simulate.Server{}, true
	site.FileSystem, site.Spread = 0, 0
	site.SharedCores = float64(runtime.NumCPU())
	site.Node = simulate.Node{Cores: site.SharedCores}
	site.Costs = costs
	var all []simulate.Result
	for seed := range uint64(11) {
		r, err := simulate.Run(site, p.images[sh.Image], sh.Layout, sh.Nodes, seed)
		if err != nil {
			panic(err)
		}
		all = append(all, r)
	}
	slices.SortFunc(all, func(a, b simulate.Result) int { return int(math.Copysign(1, a.Last-b.Last)) })
	return all[len(all)/2]
}

// onOneCore measures what nodes with two cores cannot show: seconds per byte of a
// layer for the part of a conversion that one core does, inflating and hashing,
// and per byte of a squashfs file for hashing it.
func onOneCore(t *testing.T) (serial, hash float64) {
	t.Helper()
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	img, err := images.ReadLayout(images.Layout(t, "bio"), images.Tag)
	if err != nil {
		t.Fatal(err)
	}
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	body, err := layers[0].Compressed()
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	packed, err := io.ReadAll(body)
	if err != nil {
		t.Fatal(err)
	}
	z := inflate.NewReader(bufio.NewReader(bytes.NewReader(packed)), func(err error) error { return err })
	defer z.Close()
	began := time.Now()
	if _, err := io.Copy(sha256.New(), z); err != nil {
		t.Fatal(err)
	}
	serial = time.Since(began).Seconds() / float64(len(packed))
	began = time.Now()
	sha256.Sum256(packed)
	return serial, time.Since(began).Seconds() / float64(len(packed))
}

// fit looks for the costs whose predictions are nearest to what was measured,
// in wall time and CPU time: one at a time, by ever smaller steps.
func (p *prediction) fit(t *testing.T, shapes []scenario) simulate.Costs {
	c := simulate.MeasuredCosts()
	c.Serial, c.Hash = onOneCore(t)
	wrong := func() float64 {
		sum := 0.0
		for _, sh := range shapes {
			is, says := p.measured(sh), p.predict(sh, c)
			sum += math.Pow(math.Log(says.Last/is.Last), 2) + math.Pow(math.Log(says.CPU/is.CPU), 2)
		}
		return sum
	}
	best := wrong()
	for step := 1.5; step > 1.01; {
		better := false
		for _, x := range []*float64{&c.Before, &c.After, &c.Pull, &c.Copy} {
			for _, f := range []float64{step, 1 / step} {
				was := *x
				*x *= f
				if now := wrong(); now < best {
					best, better = now, true
				} else {
					*x = was
				}
			}
		}
		if !better {
			step = math.Sqrt(step)
		}
	}
	return c
}

// A predictedStart is one of predictions.json.
type predictedStart struct {
	Name      string    `json:"name"`
	Kind      string    `json:"kind"` // fitted, predicted or unbound
	Rounds    []float64 `json:"rounds_s"`
	Predicted float64   `json:"predicted_s"`
}

// report compares, writes both, and fails the test where a prediction that was
// not fitted is too far off.
func (p *prediction) report(t *testing.T, costs simulate.Costs, training, rest, shown []scenario) {
	t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "costs fitted to one and two nodes: %+v\n", costs)
	var record []predictedStart
	row := func(sh scenario, kind string) {
		is, says := p.measured(sh), p.predict(sh, costs)
		record = append(record, predictedStart{sh.String(), kind, is.Rounds, says.Last})
		off := says.Last/is.Last - 1
		fmt.Fprintf(&b, "%-52v last %6.2f s (%5.2f to %5.2f), predicted %6.2f (%+5.1f %%); median %6.2f, predicted %6.2f; CPU %5.1f, predicted %5.1f s; requests %d, predicted %d; bytes %d, predicted %d\n",
			sh, is.Last, slices.Min(is.Rounds), slices.Max(is.Rounds), says.Last, 100*off, is.Median, says.Median, is.CPU, says.CPU, is.Requests, says.Registry.Requests, is.Upstream, says.Registry.Bytes)
		if kind == "predicted" && math.Abs(off) > tolerance {
			t.Errorf("%v: %.2f s, predicted %.2f", sh, is.Last, says.Last)
		}
		// A mirror's own requests depend on who came first.
		if sh.Layout != simulate.Mirror && is.Requests != says.Registry.Requests {
			t.Errorf("%v: %d requests, predicted %d", sh, is.Requests, says.Registry.Requests)
		}
	}
	fmt.Fprintln(&b, "fitted:")
	for _, sh := range training {
		row(sh, "fitted")
	}
	fmt.Fprintln(&b, "not fitted:")
	for _, sh := range rest {
		row(sh, "predicted")
	}
	fmt.Fprintln(&b, "bound by nothing but this one machine, and not judged:")
	for _, sh := range shown {
		row(sh, "unbound")
	}
	t.Log(b.String())
	writeJSON(t, filepath.Join(*predictOut, "predictions.json"), record)
	if err := os.WriteFile(filepath.Join(*predictOut, "scale.txt"), []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}
