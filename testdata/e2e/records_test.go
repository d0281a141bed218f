package e2e

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// A stepRecord is what users find in a record of berth record --json.
type stepRecord struct {
	Job, Step, Node, Account, Asked, Digest string
	UID                                     int
	Image                                   struct {
		Hit      bool
		Verdicts struct{ Policy, Rights string }
	}
	Versions struct{ Berth, Kernel, Slurm string }
	Seconds  map[string]float64
	Failure  *struct{ Cause string }
	Said     struct{ Mounts []string } `json:"said_by_user"`
	Wanted   struct{ Mounts []string }
}

// record is what berth record --json prints as a user on a node.
func (s *site) record(t *testing.T, node, user, job string) []stepRecord {
	t.Helper()
	var all []stepRecord
	out := s.With(t).MustRun(t.Context(), node, user, "/opt/berth/bin/berth", "record", "--json", job)
	if err := json.Unmarshal([]byte(out), &all); err != nil {
		t.Fatal(err)
	}
	return all
}

// eventually runs a script as root on a node until it succeeds.
func (s *site) eventually(t *testing.T, node, script string) string {
	t.Helper()
	return s.With(t).MustRun(t.Context(), node, "root", "timeout", "100", "sh", "-c", "until "+script+"; do sleep 0.1; done")
}

// counts are the counts of a node, as Prometheus reads them: NAME VALUE… of labels.
func (s *site) counts(t *testing.T, node string) map[string]float64 {
	t.Helper()
	text := s.With(t).MustRun(t.Context(), node, "root", "cat", "/var/lib/node_exporter/berth.prom")
	p := expfmt.NewTextParser(model.LegacyValidation)
	families, err := p.TextToMetricFamilies(strings.NewReader(text))
	if err != nil {
		t.Fatalf("%v:\n%s", err, text)
	}
	counts := map[string]float64{}
	for name, f := range families {
		for _, m := range f.GetMetric() {
			words := []string{name}
			for _, l := range m.GetLabel() {
				words = append(words, l.GetValue())
			}
			value := m.GetCounter().GetValue()
			if f.GetType() == dto.MetricType_HISTOGRAM {
				value = float64(m.GetHistogram().GetSampleCount())
			}
			counts[strings.Join(words, " ")] = value
		}
	}
	return counts
}

const recordsConfig = `
[records]
textfile = "/var/lib/node_exporter/berth.prom"
[[policy.rule]]
name = "none of those"
images = ["10.97.0.1:5000/denied"]
action = "deny"
`

// TestRecords: what became of jobs is there for their users, and for nobody
// else; and it is counted, by account and cause.
func TestRecords(t *testing.T) {
	bothWays(t, func(t *testing.T, s *site) {
		for _, n := range nodes {
			s.MustRun(t.Context(), n, "root", "mkdir", "-p", "/var/lib/node_exporter")
		}
		job := func(user, args string) string {
			t.Helper()
			r := s.as(t, user, "srun "+args+" sh -c 'echo job=$SLURM_JOB_ID'")
			m := regexp.MustCompile(`job=(\d+)`).FindStringSubmatch(r.Stdout)
			if m == nil {
				t.Fatalf("%v", r)
			}
			return m[1]
		}
		first := job("alice", "-N2 -w n1,n2 -A bio --container-mounts=/usr/share:/share:ro --container-image="+tiny)
		second := job("alice", "-w n1 -A bio --container-remap-root --container-image="+tiny)
		bobs := job("bob", "-w n1 -A theo --container-image="+tiny)
		failed := s.as(t, "alice", "srun -w n1 -A bio --container-pin=no --container-image="+registry+"/nothing:1 true")
		denied := s.as(t, "alice", "srun -w n1 -A bio --container-pin=no --container-image="+registry+"/denied:1 true")
		if failed.Code == 0 || denied.Code == 0 || !strings.Contains(denied.Stderr, "policy") {
			t.Errorf("%v, %v", failed, denied)
		}
		s.idle(t)

		one, two := s.record(t, "n1", "alice", first), s.record(t, "n2", "alice", first+".0")
		if len(one) != 1 || len(two) != 1 {
			t.Fatalf("%+v, %+v", one, two)
		}
		r := one[0]
		if r.Job != first || r.Step != "0" || r.Account != "bio" || r.UID != 2001 || r.Asked != tiny || r.Image.Hit || r.Failure != nil ||
			!strings.HasPrefix(r.Digest, "sha256:") || r.Digest != two[0].Digest || r.Node == two[0].Node {
			t.Errorf("%+v, %+v", r, two[0])
		}
		if r.Versions.Berth == "" || r.Versions.Kernel == "" || !regexp.MustCompile(`^\d+\.\d+`).MatchString(r.Versions.Slurm) || r.Seconds["create"] <= 0 {
			t.Errorf("%+v", r)
		}
		if r.Image.Verdicts.Rights != "public" || !strings.Contains(r.Image.Verdicts.Policy, "policy.default") ||
			!slices.Equal(r.Wanted.Mounts, []string{"/usr/share:/share:ro"}) || !slices.Contains(r.Said.Mounts, "/usr/share:/share:ro") {
			t.Errorf("%+v", r)
		}
		if again := s.record(t, "n1", "alice", second); len(again) != 1 || !again[0].Image.Hit {
			t.Errorf("%+v", again)
		}
		s.recordsOfOthers(t, first, bobs)

		c := s.counts(t, "n1")
		for name, want := range map[string]float64{
			"berth_image_misses_total bio": 1, "berth_image_hits_total bio": 1, "berth_image_hits_total theo": 1,
			"berth_failures_total bio unknown_image": 1, "berth_failures_total bio policy": 1,
			"berth_containers_total bio": 2, "berth_containers_total theo": 1, "berth_phase_seconds create": 3,
		} {
			if c[name] != want {
				t.Errorf("%s is %v, want %v: %v", name, c[name], want, c)
			}
		}
		if c["berth_pulled_bytes_total bio"] <= 0 || c["berth_image_wait_seconds_total bio"] <= 0 || c["berth_phase_seconds pull"] != 1 {
			t.Errorf("%v", c)
		}
		s.recordsWhileRunning(t)
	}, func(s *setup) { s.More = append(s.More, recordsConfig) })
}

// recordsOfOthers looks from who may not, and from root.
func (s *site) recordsOfOthers(t *testing.T, alices, bobs string) {
	t.Helper()
	for _, command := range []string{"record", "logs"} {
		r := s.With(t).Run(t.Context(), "n1", "bob", "/opt/berth/bin/berth", command, alices)
		if r.Code != 64 || r.Stdout != "" || !strings.Contains(r.Stderr, "none of a job of yours") {
			t.Errorf("%s: %v", command, r)
		}
		s.With(t).MustRun(t.Context(), "n1", "root", "/opt/berth/bin/berth", command, bobs)
	}
	file := "/var/lib/berth/records/jobs/" + alices + ".2001.jsonl"
	if r := s.With(t).Run(t.Context(), "n1", "bob", "cat", file); r.Code == 0 {
		t.Errorf("%v", r)
	}
	s.With(t).MustRun(t.Context(), "n1", "alice", "cat", file)
	if out := s.With(t).MustRun(t.Context(), "n1", "alice", "/opt/berth/bin/berth", "logs", alices); !regexp.MustCompile(
		`(?s)n1 ` + alices + `\.0: image ` + regexp.QuoteMeta(tiny) + ` .* from its registry, .*container ready in `).MatchString(out) {
		t.Errorf("%s", out)
	}
	if out := s.With(t).MustRun(t.Context(), "n1", "root", "/opt/berth/bin/berth", "logs", alices); !strings.Contains(out, "container ready") {
		t.Errorf("%s", out)
	}
}

// recordsWhileRunning looks at a job while it runs, with a journald on its node.
func (s *site) recordsWhileRunning(t *testing.T) {
	t.Helper()
	const berth = "/opt/berth/bin/berth"
	id := strings.TrimSpace(s.as(t, "alice", "sbatch --parsable -w n1 -A bio -o /dev/null --container-image="+tiny+" --wrap 'sleep 300'").Stdout)
	out := s.eventually(t, "n1", berth+" ps | grep -w "+id)
	if !regexp.MustCompile(`^alice +` + id + ` +batch +` + regexp.QuoteMeta(tiny) + ` +\d+ +\d+s\n$`).MatchString(out) {
		t.Errorf("%q", out)
	}
	if out := s.With(t).MustRun(t.Context(), "n1", "alice", berth, "ps"); !regexp.MustCompile(`(?m)^` + id + ` +batch +` + regexp.QuoteMeta(tiny) + ` +\d+ +\d+s$`).MatchString(out) {
		t.Errorf("%q", out)
	}
	if out := s.With(t).MustRun(t.Context(), "n1", "bob", berth, "ps"); strings.Contains(out, id) {
		t.Errorf("%q", out)
	}
	out = s.With(t).MustRun(t.Context(), "n1", "root", berth, "node", "status")
	if !regexp.MustCompile(`(?s)^store: 1 images, .*counted: 2 hits, 1 misses, 2 failures, .*\n` + id + ` +2001 +\S+ +ready.*\nalice +` + id + ` +batch `).MatchString(out) {
		t.Errorf("%s", out)
	}
	s.as(t, "alice", "scancel "+id)
	s.idle(t)
	if out := s.With(t).MustRun(t.Context(), "n1", "root", berth, "ps", "--json"); strings.TrimSpace(out) != "[]" {
		t.Errorf("%s", out)
	}
	if c := s.counts(t, "n1"); c["berth_containers_total bio"] != 3 {
		t.Errorf("after the epilog: %v", c)
	}
}

// TestJournal: a node's journald, where there is one, has what Berth said, by
// job and step; one that stands still holds nobody up.
func TestJournal(t *testing.T) {
	s := newSite(t)
	const journald = "/lib/systemd/systemd-journald"
	if s.Run(t.Context(), "n1", "root", "sh", "-c", "test -x "+journald+" && command -v journalctl").Code != 0 {
		t.Skip("needs systemd-journald")
	}
	s.MustRun(t.Context(), "n1", "root", "sh", "-c",
		"mkdir -p /run/systemd/journal /run/log/journal; [ -s /etc/machine-id ] || echo 0123456789abcdef0123456789abcdef >/etc/machine-id; setsid "+journald+" </dev/null >/dev/null 2>&1 & echo $! >/run/journald.pid")
	s.eventually(t, "n1", "[ -S /run/systemd/journal/socket ]")
	r := s.as(t, "alice", "srun -w n1 --container-image="+tiny+" sh -c 'echo $SLURM_JOB_ID'")
	id := strings.TrimSpace(r.Stdout)
	out := s.eventually(t, "n1", "journalctl -q --no-pager -o cat BERTH_JOB="+id+" BERTH_STEP=0 | grep 'container ready'")
	if !strings.Contains(out, "container ready") {
		t.Errorf("%s", out)
	}
	if out := s.MustRun(t.Context(), "n1", "root", "/opt/berth/bin/berth", "logs", id); !strings.Contains(out, "berth") || !strings.Contains(out, "container ready") {
		t.Errorf("%s", out)
	}
	s.MustRun(t.Context(), "n1", "root", "sh", "-c", "kill -STOP $(cat /run/journald.pid)")
	began := time.Now()
	if r := s.as(t, "alice", "srun -w n1 --container-image="+tiny+" true"); r.Code != 0 {
		t.Errorf("%v", r)
	}
	t.Logf("a step beside a journald that stands still: %v", time.Since(began))
	s.MustRun(t.Context(), "n1", "root", "sh", "-c", "kill -KILL $(cat /run/journald.pid)")
	s.idle(t)
}
