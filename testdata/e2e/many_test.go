package e2e

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/berth-hpc/berth/testdata/cluster"
)

var manyReport = flag.String("many.report", "", "a file for the numbers of TestManyNodes, as JSON")

// What TestManyNodes starts.
const (
	manyNodes  = 16
	manyImages = 5
	jobsEach   = 8 // of a user
)

var manyUsers = []string{"alice", "bob", "carol", "dave", "erin", "frank", "grace", "heidi"}

func withNodes(n int) option { return func(s *setup) { s.Cluster.Nodes = n } }

// A wave is all users' jobs at once, and what came of them.
type wave struct {
	images []string // "" for jobs without one
	begun  float64  // on the machine's clock, as are starts
	starts []float64
	cpu    float64 // seconds, of all machines
	peak   rssPeak
}

// TestManyNodes has eight users start 64 jobs in five images on sixteen nodes
// that have none of them and share a store. Each image is pulled and converted
// once, each job runs in its own, and nothing is left. How fast that goes says
// little about real nodes: these share the processors of one machine.
func TestManyNodes(t *testing.T) {
	s, reg := clusterSite(t, "copy", true, withNodes(manyNodes), withConf("SelectTypeParameters=CR_Core,CR_LLN"))
	machines := []string{"ctl"}
	for i := range manyNodes {
		machines = append(machines, fmt.Sprint("n", i+1))
	}
	// The run folder, the logs and srun's answers are there from here on.
	if r := s.as(t, "alice", fmt.Sprintf("srun -N%d --container-image=%s true", manyNodes, tiny)); r.Code != 0 {
		t.Fatal(r)
	}
	s.With(t).WaitIdle()
	before := map[string]residue{}
	for _, m := range machines {
		before[m] = s.residueOf(t, m)
	}
	var names []string
	var blobs []*trickled
	for i := range manyImages {
		image, blob := reg.image(t, fmt.Sprint("many", i), 3*time.Second)
		names, blobs = append(names, image), append(blobs, blob)
	}
	bare := &wave{images: []string{""}}
	cold, warm := &wave{images: names}, &wave{images: names}
	for _, w := range []*wave{bare, cold, warm} {
		w.run(t, s, machines)
	}
	for i, blob := range blobs {
		if count, whole := reg.transfers(blob); count != 1 || whole != 1 {
			t.Errorf("%s was asked for %d times and arrived %d times", names[i], count, whole)
		}
	}
	s.convertedOnce(t, names)
	for _, m := range machines {
		if more := s.settled(t, m, before[m], ofImages); len(more) > 0 {
			t.Errorf("%s has more than before:\n%s", m, strings.Join(more, "\n"))
		}
	}
	s.nothingShared(t)
	s.manyReport(t, bare, cold, warm)
}

// ofImages are the images themselves, the files that their locks are, and the
// notes that the node has seen them whole.
var ofImages = regexp.MustCompile(` /(var/lib/berth/(images/sha256|locks)|run/berth/verified)/`)

// run has all users start their jobs at once, and looks at what they printed.
func (w *wave) run(t *testing.T, s *site, machines []string) {
	t.Helper()
	s.With(t).WaitIdle()
	w.begun = uptime(t)
	cpu := s.cpuOf(t, machines)
	stop := s.watchRSS(t, machines)
	var all sync.WaitGroup
	outputs := make([]string, len(manyUsers))
	for i, user := range manyUsers {
		all.Go(func() {
			r := s.With(t).Do(t.Context(), cluster.Command{
				Machine: "ctl", User: user, Args: []string{"bash", "-s"}, Stdin: strings.NewReader(w.script(i)), Timeout: 3 * time.Minute,
			})
			if r.Code != 0 {
				t.Errorf("%s: %v", user, r)
			}
			outputs[i] = r.Stdout
		})
	}
	all.Wait()
	s.With(t).WaitIdle()
	w.peak = stop()
	w.cpu = s.cpuOf(t, machines) - cpu
	for i, out := range outputs {
		w.judge(t, manyUsers[i], i, out)
	}
	if want := len(manyUsers) * jobsEach; len(w.starts) != want {
		t.Errorf("%d starts, want %d", len(w.starts), want)
	}
	slices.Sort(w.starts)
}

func (w *wave) image(user, job int) string { return w.images[(user+job)%len(w.images)] }

// script is what a user does. A job prints its number, when it began, who it
// runs as, and which image it sees.
func (w *wave) script(user int) string {
	var b strings.Builder
	b.WriteString("cd ~\n")
	for job := range jobsEach {
		image := w.image(user, job)
		if image != "" {
			image = "--container-image=" + image
		}
		fmt.Fprintf(&b, "srun %s sh -c 'echo %d $(cut -d\" \" -f1 /proc/uptime) $(id -u) $(ls /share/ 2>/dev/null | grep many)' & pids=\"$pids $!\"\n", image, job)
	}
	b.WriteString("code=0; for pid in $pids; do wait $pid || code=1; done; find ~ -mindepth 1 ! -path \"*/.cache*\"; exit $code\n")
	return b.String()
}

// judge reads what a user's jobs printed; files that they left are lines, too.
func (w *wave) judge(t *testing.T, user string, number int, out string) {
	t.Helper()
	for line := range strings.Lines(out) {
		fields := append(strings.Fields(line), "")
		job, err := strconv.Atoi(fields[0])
		if err != nil || len(fields) < 4 {
			t.Errorf("%s has %q", user, line)
			continue
		}
		want := strings.TrimSuffix(filepath.Base(w.image(number, job)), ":1")
		if want == "." {
			want = ""
		}
		if fields[2] != fmt.Sprint(2001+number) || fields[3] != want {
			t.Errorf("job %d of %s: %q, want image %q", job, user, line, want)
		}
		start, err := strconv.ParseFloat(fields[1], 64)
		if err != nil {
			t.Errorf("%s: %q: %v", user, line, err)
		}
		w.starts = append(w.starts, start-w.begun)
	}
}

// convertedOnce asserts that all copies of an image are from one conversion,
// which its record has the time of.
func (s *site) convertedOnce(t *testing.T, images []string) {
	t.Helper()
	records, err := filepath.Glob(filepath.Join(s.Dir, "machines", "n*", "root/var/lib/berth/images/sha256/*/record.json"))
	if err != nil {
		t.Fatal(err)
	}
	first, copies := map[string]string{}, map[string]int{}
	for _, path := range records {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		key := filepath.Base(filepath.Dir(path))
		if copies[key]++; copies[key] == 1 {
			first[key] = string(text)
		}
		if string(text) != first[key] {
			t.Errorf("%s was converted more than once:\n%s\n%s", key, first[key], text)
		}
	}
	if len(first) != len(images)+1 { // and tiny
		t.Errorf("nodes have %d images, want %d: %v", len(first), len(images)+1, copies)
	}
	t.Logf("%d copies of %d images", len(records), len(first))
}

// nothingShared looks at what is left in the store that the nodes share.
func (s *site) nothingShared(t *testing.T) {
	t.Helper()
	left := s.With(t).MustRun(t.Context(), "ctl", "root", "sh", "-c", "cd "+sharedStore+" && find locks leases tmp images/.new images/.removed -mindepth 1")
	if left != "" {
		t.Errorf("left in the shared store: %s", left)
	}
}

// uptime is the machine's clock, which containers see as well.
func uptime(t *testing.T) float64 {
	t.Helper()
	text, err := os.ReadFile("/proc/uptime")
	if err != nil {
		t.Fatal(err)
	}
	var up float64
	if _, err := fmt.Sscan(string(text), &up); err != nil {
		t.Fatal(err)
	}
	return up
}

// cpuOf is what all processes of machines have used so far, in seconds: those
// that are gone are counted by whoever waited for them, in the end by tini.
func (s *site) cpuOf(t *testing.T, machines []string) float64 {
	t.Helper()
	const ticks = 100 // per second, of /proc, on every architecture
	sum := 0
	for _, m := range machines {
		for _, p := range s.Processes(m) {
			stat, err := os.ReadFile(p.Dir + "/stat")
			if err != nil {
				continue // gone, and counted elsewhere
			}
			_, after, _ := strings.Cut(string(stat), ") ")
			fields := strings.Fields(after)
			for _, field := range fields[11:15] { // utime, stime, and those of children
				n, err := strconv.Atoi(field)
				if err != nil {
					t.Fatal(err)
				}
				sum += n
			}
		}
	}
	return float64(sum) / ticks
}

// An rssPeak is the most memory that processes of ours were seen to have, in
// MiB: resident, shared pages counted by their share.
type rssPeak struct {
	Process float64 `json:"process_mib"`
	Node    float64 `json:"node_mib"`
	All     float64 `json:"all_mib"`
}

// watchRSS looks at processes of Berth until it is stopped.
func (s *site) watchRSS(t *testing.T, machines []string) (stop func() rssPeak) {
	t.Helper()
	var peak rssPeak
	own := map[string]string{} // machines by their host name's namespace
	for _, m := range machines {
		ns, err := os.Readlink("/proc/" + s.PID(m) + "/ns/uts")
		if err != nil {
			t.Fatal(err)
		}
		own[ns] = m
	}
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(300 * time.Millisecond)
		defer tick.Stop()
		for {
			peak.look(own)
			select {
			case <-end:
				return
			case <-tick.C:
			}
		}
	}()
	return func() rssPeak { close(end); <-ended; return peak }
}

// look counts what runs on machines now.
func (p *rssPeak) look(machines map[string]string) {
	all, nodes := 0.0, map[string]float64{}
	names, _ := filepath.Glob("/proc/[0-9]*/comm")
	for _, name := range names {
		comm, err := os.ReadFile(name)
		if err != nil || !strings.HasPrefix(string(comm), "berth") {
			continue
		}
		dir := filepath.Dir(name)
		ns, _ := os.Readlink(dir + "/ns/uts")
		text, err := os.ReadFile(dir + "/smaps_rollup")
		machine, ok := machines[ns]
		if err != nil || !ok {
			continue
		}
		_, after, _ := strings.Cut(string(text), "\nPss:")
		var kB float64
		if _, err := fmt.Sscan(after, &kB); err != nil {
			continue
		}
		mib := kB / 1024
		nodes[machine] += mib
		all += mib
		p.Process, p.Node = max(p.Process, mib), max(p.Node, nodes[machine])
	}
	p.All = max(p.All, all)
}

// A recorded wave is one of -many.report's.
type recordedWave struct {
	Name   string    `json:"name"`
	Starts []float64 `json:"starts_s"` // since all were submitted
	CPU    float64   `json:"cpu_s"`
	Peak   rssPeak   `json:"peak"`
}

// manyReport says how fast it went and what it took.
func (s *site) manyReport(t *testing.T, bare, cold, warm *wave) {
	t.Helper()
	var b strings.Builder
	load, _ := os.ReadFile("/proc/loadavg")
	fmt.Fprintf(&b, "%d nodes on one machine, %d jobs of %d users in %d images; load afterwards %s",
		manyNodes, len(manyUsers)*jobsEach, len(manyUsers), manyImages, load)
	var record []recordedWave
	for _, w := range []struct {
		name string
		*wave
	}{{"bare", bare}, {"cold", cold}, {"warm", warm}} {
		record = append(record, recordedWave{w.name, w.starts, w.cpu, w.peak})
		n := float64(len(w.starts))
		if n == 0 {
			continue
		}
		last := w.starts[len(w.starts)-1]
		fmt.Fprintf(&b, "%s: first start after %.2f s, median %.2f s, last %.2f s: %.1f starts per second; %.3f CPU s per start, of Slurm and all; Berth's processes at most %.0f MiB each, %.0f on a node, %.0f together\n",
			w.name, w.starts[0], w.starts[len(w.starts)/2], last, n/last, w.cpu/n, w.peak.Process, w.peak.Node, w.peak.All)
	}
	t.Log(b.String())
	if *manyReport != "" {
		writeJSON(t, *manyReport, record)
	}
}

func writeJSON(t *testing.T, file string, v any) {
	t.Helper()
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, data, 0o644); err != nil {
		t.Fatal(err)
	}
}
