package metrics

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"golang.org/x/sys/unix"
)

func fold(t *testing.T, dir string) *Sums {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := Fold(ctx, dir, ""); err != nil {
		t.Fatal(err)
	}
	s, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func parse(t *testing.T, data []byte) map[string]*dto.MetricFamily {
	t.Helper()
	p := expfmt.NewTextParser(model.LegacyValidation)
	families, err := p.TextToMetricFamilies(bytes.NewReader(data))
	if err != nil {
		t.Fatalf("%v:\n%s", err, data)
	}
	return families
}

// What is counted, as Prometheus reads it.
func TestText(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "records")
	odd := "a\"b\\c\nd\xffe"
	for _, e := range []Event{
		{Account: "bio", Hit: true, Seconds: map[string]float64{"prepare": 0.02}, Waited: 0.5},
		{Account: "bio", Miss: true, Pulled: 1000, Seconds: map[string]float64{"prepare": 7, "pull": 1e9, "lock": -1}, Waited: 6.5},
		{Account: odd, Failure: "unknown_image", Pulled: -5, Waited: -1},
		{Failure: "policy", Seconds: map[string]float64{"prepare": 5000}},
		{Container: true, Evicted: 2, EvictedBytes: 30},
	} {
		if err := Append(dir, e); err != nil {
			t.Fatal(err)
		}
	}
	fold(t, dir)
	text, err := os.ReadFile(filepath.Join(dir, "berth.prom"))
	if err != nil {
		t.Fatal(err)
	}
	families := parse(t, text)
	value := func(name string, labels ...string) float64 {
		for _, m := range families[name].GetMetric() {
			got := ""
			for _, l := range m.GetLabel() {
				got += l.GetValue() + ";"
			}
			if got == strings.Join(append(labels, ""), ";") {
				return m.GetCounter().GetValue()
			}
		}
		t.Errorf("no %s%q", name, labels)
		return -1
	}
	read := strings.ToValidUTF8(odd, "\uFFFD")
	for _, tc := range []struct {
		got, want float64
	}{
		{value("berth_image_hits_total", "bio"), 1},
		{value("berth_image_misses_total", "bio"), 1},
		{value("berth_pulled_bytes_total", "bio"), 1000},
		{value("berth_pulled_bytes_total", read), 0},
		{value("berth_image_wait_seconds_total", "bio"), 7},
		{value("berth_failures_total", read, "unknown_image"), 1},
		{value("berth_failures_total", "", "policy"), 1},
		{value("berth_containers_total", ""), 1},
		{value("berth_evictions_total"), 2},
		{value("berth_evicted_bytes_total"), 30},
	} {
		if tc.got != tc.want {
			t.Errorf("got %v, want %v in\n%s", tc.got, tc.want, text)
		}
	}
	phases := families["berth_phase_seconds"].GetMetric()
	if len(phases) != 1 {
		t.Fatalf("%d phases: a duration that is none is counted", len(phases))
	}
	h := phases[0].GetHistogram()
	if h.GetSampleCount() != 3 || h.GetSampleSum() != 5007.02 {
		t.Errorf("%v", h)
	}
	for _, b := range h.GetBucket() {
		want := uint64(3)
		switch {
		case b.GetUpperBound() < 0.02:
			want = 0
		case b.GetUpperBound() < 7:
			want = 1
		case b.GetUpperBound() <= 1800:
			want = 2
		}
		if b.GetCumulativeCount() != want {
			t.Errorf("up to %v: %d, want %d", b.GetUpperBound(), b.GetCumulativeCount(), want)
		}
	}
	if st, err := os.Stat(filepath.Join(dir, "berth.prom")); err != nil || st.Mode().Perm() != 0o644 {
		t.Errorf("%v, %v: node_exporter must read it", st, err)
	}
}

// Nothing is lost or counted twice where many count while others add up.
func TestConcurrent(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "records")
	const writers, each = 8, 100
	var writing, folding sync.WaitGroup
	stop := make(chan bool)
	for range writers {
		writing.Go(func() {
			for range each {
				if err := Append(dir, Event{Account: "a", Hit: true}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 3 {
		folding.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := Fold(t.Context(), dir, ""); err != nil {
					t.Error(err)
				}
			}
		})
	}
	writing.Wait()
	close(stop)
	folding.Wait()
	if got := fold(t, dir).Accounts["a"].Hits; got != writers*each {
		t.Errorf("%d of %d", got, writers*each)
	}
}

// A process that is killed anywhere within Fold leaves what the next one makes
// right: the same state on disk as at each of its steps.
func TestKilledWithinFold(t *testing.T) {
	for _, tc := range []struct {
		name string
		kill func(t *testing.T, dir string)
	}{
		{"after the spool was renamed", func(t *testing.T, dir string) {
			rename(t, filepath.Join(dir, spoolName), partName(dir, 2))
		}},
		{"after the sums were written", func(t *testing.T, dir string) {
			data, err := os.ReadFile(filepath.Join(dir, spoolName))
			if err != nil {
				t.Fatal(err)
			}
			fold(t, dir)
			if err := os.WriteFile(partName(dir, 2), data, 0o600); err != nil {
				t.Fatal(err)
			}
		}},
		{"in the middle of a line", func(t *testing.T, dir string) {
			f, err := os.OpenFile(filepath.Join(dir, spoolName), os.O_APPEND|os.O_WRONLY, 0)
			if err == nil {
				_, err = f.WriteString("\n{\"hit\":tr")
				f.Close()
			}
			if err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "records")
			count := func() {
				if err := Append(dir, Event{Hit: true}); err != nil {
					t.Fatal(err)
				}
			}
			count()
			fold(t, dir)
			count()
			tc.kill(t, dir)
			count()
			if got := fold(t, dir).Accounts[""].Hits; got != 3 {
				t.Errorf("%d hits of 3", got)
			}
			parts, err := filepath.Glob(filepath.Join(dir, spoolName+".*"))
			if err != nil || len(parts) > 0 {
				t.Errorf("left: %q, %v", parts, err)
			}
		})
	}
}

func rename(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

// Nobody who counts waits for who adds up, nor for who has stopped.
func TestAppendNeverWaits(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "records")
	if err := Append(dir, Event{Hit: true}); err != nil {
		t.Fatal(err)
	}
	stopped, err := openSpool(dir) // a writer that got no further
	if err != nil {
		t.Fatal(err)
	}
	defer stopped.Close()
	lock, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if err := Append(dir, Event{Hit: true}); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := Fold(ctx, dir, ""); err == nil {
		t.Error("two fold at a time")
	}
}

// Where Slurm lets users name any account, they do not decide how many series
// Prometheus has.
func TestAccountsAreBounded(t *testing.T) {
	s := &Sums{Accounts: map[string]*Account{}, Phases: map[string]*Histogram{}}
	for i := range 5 * maxAccounts {
		s.add(Event{Account: fmt.Sprint(i), Hit: true})
		s.add(Event{Account: strings.Repeat("x", maxLabel+i+1), Hit: true})
	}
	total := int64(0)
	for _, a := range s.Accounts {
		total += a.Hits
	}
	if len(s.Accounts) > maxAccounts+1 || total != 10*maxAccounts || s.Accounts[others].Hits == 0 {
		t.Errorf("%d accounts, %d hits", len(s.Accounts), total)
	}
}

// A spool that nobody adds up does not fill the disk.
func TestSpoolIsBounded(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, spoolName), make([]byte, maxSpool+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Append(dir, Event{Hit: true}); err == nil {
		t.Error("it grows")
	}
}

// Sums that a power cut has spoiled begin again; they stop nobody.
func TestSpoiledSums(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, sumsName), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Append(dir, Event{Hit: true}); err != nil {
		t.Fatal(err)
	}
	if got := fold(t, dir).Accounts[""].Hits; got != 1 {
		t.Errorf("%d hits", got)
	}
}

// In a folder that others write in, a name that they have put there leads
// nowhere.
func TestTextfileOfOthersFolder(t *testing.T) {
	dir, shared := t.TempDir(), t.TempDir()
	victim := filepath.Join(dir, "victim")
	if err := os.WriteFile(victim, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(shared, "berth.prom")
	if err := os.Symlink(victim, name); err != nil {
		t.Fatal(err)
	}
	if err := Append(dir, Event{Hit: true}); err != nil {
		t.Fatal(err)
	}
	if err := Fold(t.Context(), dir, name); err != nil {
		t.Fatal(err)
	}
	if data, _ := os.ReadFile(victim); string(data) != "mine" {
		t.Errorf("written through a link: %q", data)
	}
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	parse(t, data)
	if left, _ := filepath.Glob(filepath.Join(shared, ".*")); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}

// A spool that was added up between its opening and the lock takes no line any
// more.
func TestRenamedSpool(t *testing.T) {
	name := filepath.Join(t.TempDir(), spoolName)
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if same, err := lockedAs(f, name); err != nil || !same {
		t.Errorf("%v, %v", same, err)
	}
	rename(t, name, name+".1")
	if same, err := lockedAs(f, name); err != nil || same {
		t.Errorf("renamed: %v, %v", same, err)
	}
	if err := os.WriteFile(name, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if same, err := lockedAs(f, name); err != nil || same {
		t.Errorf("another one: %v, %v", same, err)
	}
}
