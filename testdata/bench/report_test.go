package main

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// sample is a report with everything that one can have.
func sample() Report {
	c := comparison{section: "start of true", name: "warm against <bubblewrap> & \"co\"", unit: "ms", base: "bubblewrap", ours: "warm", scale: 1000, statistic: "ratio", target: most(1.2)}
	met := c.line([]pair{{0.004, 0.002}, {0.005, 0.003}, {0.004, 0.003}, {0.004, 0.002}, {0.004, 0.002}}, 1, "bubblewrap ended with 1: no")
	c.name, c.target = "missed", most(0.1)
	missed := c.line([]pair{{0.004, 0.002}, {0.005, 0.003}}, 0, "")
	c.name, c.base, c.target = "podman against bare", "podman run", most(1)
	missing := c.missing("crun: cannot set up cgroups")
	c.name, c.target = "MPI", &Target{Most: 1.03, Within: true, Pairs: 30}
	few := c.line([]pair{{1, 2}}, 0, "")
	c.name, c.statistic, c.base, c.target = "memory", "median", "", nil
	plain := c.line([]pair{{ours: -0.1}, {ours: 0.2}}, 0, "")
	return Report{
		Began: time.Unix(1e9, 0).UTC(), Ended: time.Unix(1e9+60, 0).UTC(), Revision: "v1-dirty", Sections: []string{"start"}, Rounds: 3,
		Machine: Machine{CPUs: 2, CPU: "a <CPU>", Kernel: "6.18", Virtual: true},
		Peers:   []Peer{{Name: "bubblewrap", Version: "0.8.0-2"}, {Name: "enroot", Missing: "not in Debian 12"}},
		Tables: []Table{{Title: "pull", Columns: []string{"wall s"}, Rows: []Row{
			{Name: "berth", Ours: true, Cells: []*Summary{summarize([]float64{1, 2})}}, {Name: "ch-image", Missing: "not installed"},
		}}},
		Lines:    []Line{met, missed, missing, few, plain},
		Failures: []Failure{{"mpi", "a node <broke>"}},
	}
}

// What is written as JSON is all of the report: other programs need nothing else.
func TestReportReadsBack(t *testing.T) {
	dir := t.TempDir()
	r := sample()
	if err := r.write(dir); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(dir, "report.json"))
	if err != nil {
		t.Fatal(err)
	}
	var got Report
	if err := json.Unmarshal(data, &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(r, got); diff != "" {
		t.Error(diff)
	}
	if got := got.Lines[0].Ours.Values; !slices.Equal(got, []float64{2, 3, 3, 2, 2}) {
		t.Errorf("the values of the rounds are %v", got)
	}
}

// The page is well-formed, and a browser that shows it asks nobody for anything.
func TestPageIsSelfContained(t *testing.T) {
	data, err := sample().html()
	if err != nil {
		t.Fatal(err)
	}
	d := xml.NewDecoder(bytes.NewReader(data))
	var text strings.Builder
	elements := map[string]int{}
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("%v in\n%s", err, data)
		}
		switch x := token.(type) {
		case xml.CharData:
			text.Write(x)
		case xml.StartElement:
			elements[x.Name.Local]++
			for _, a := range x.Attr {
				if slices.Contains([]string{"src", "href", "srcset", "data", "action", "poster", "xmlns"}, a.Name.Local) {
					t.Errorf("<%s %s=%q> names another file", x.Name.Local, a.Name.Local, a.Value)
				}
			}
		}
	}
	for _, name := range []string{"script", "link", "iframe", "object", "embed", "img"} {
		if elements[name] > 0 {
			t.Errorf("the page has <%s>", name)
		}
	}
	if m := regexp.MustCompile(`https?:|url\(|@import`).Find(data); m != nil {
		t.Errorf("the page has %q", m)
	}
	if elements["svg"] != 6 { // four lines, one column, and the ratios
		t.Errorf("%d plots", elements["svg"])
	}
	for _, want := range []string{
		"warm against <bubblewrap> & \"co\"", "a <CPU>", "enroot", "not measured: not in Debian 12", "not measured: crun: cannot set up cgroups",
		"mpi ended early: a node <broke>", "MISSED", "met", "not judged: 1 rounds of 30", "not measured: not installed",
	} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("the page does not say %q", want)
		}
	}
}

func TestTextShowsWhatIsMissing(t *testing.T) {
	text := sample().String()
	for _, want := range []string{
		"enroot: not measured: not in Debian 12", "ch-image: not measured: not installed", "not measured           crun: cannot set up cgroups",
		"(1 more with a failed run dropped: bubblewrap ended with 1: no)",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
}

func TestTargets(t *testing.T) {
	wide := make([]pair, 30) // its interval reaches below 1.03, its median is above
	for i := range wide {
		wide[i] = pair{1, 1.05 + 0.2*float64(i%3-1)}
	}
	same := [fewest]pair{}
	for i := range same {
		same[i] = pair{1, 1.1}
	}
	for name, tc := range map[string]struct {
		target *Target
		ps     []pair
		want   string
	}{
		"met":            {most(1.2), same[:], "met"},
		"missed":         {most(1.05), same[:], "MISSED"},
		"in two rounds":  {most(1.2), same[:2], "met, in 2 rounds: more would say more"},
		"no interval":    {&Target{Most: 1.03, Within: true}, same[:2], "not judged: 2 rounds of 5"},
		"by a median":    {most(1.03), wide, "MISSED, but the interval holds the target: more rounds would say more"},
		"by an interval": {&Target{Most: 1.03, Within: true}, wide, "met"},
		"too few":        {&Target{Most: 1.03, Pairs: 31}, wide, "not judged: 30 rounds of 31"},
		"nothing":        {most(1), nil, "not measured: no round was measured"},
		"to nothing":     {most(1), []pair{{0, 1}}, "not measured: there is no ratio to nothing"},
	} {
		t.Run(name, func(t *testing.T) {
			c := comparison{base: "a", ours: "b", scale: 1, statistic: "ratio", target: tc.target}
			if got := c.line(tc.ps, 0, "").verdict(); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

func TestTicks(t *testing.T) {
	for _, tc := range []struct{ low, high float64 }{{0, 1}, {0, 0.00037}, {-0.03, 0.02}, {0, 12345}, {0, 7}} {
		got := ticks(tc.low, tc.high)
		if len(got) < 3 || len(got) > 7 || got[0] < tc.low || got[len(got)-1] > tc.high {
			t.Errorf("ticks(%v, %v) = %v", tc.low, tc.high, got)
		}
	}
}

func TestChoose(t *testing.T) {
	all := (&bench{}).sections()
	chosen, err := choose(all, "mpi,pull")
	if err != nil || len(chosen) != 2 || chosen[0].name != "pull" || chosen[1].name != "mpi" {
		t.Errorf("%v, %v", chosen, err)
	}
	if chosen, err := choose(all, ""); err != nil || len(chosen) != len(all) {
		t.Errorf("%v, %v", chosen, err)
	}
	if _, err := choose(all, "pull,pulls"); err == nil || !strings.Contains(err.Error(), "pulls") {
		t.Errorf("got %v", err)
	}
}

// A section that fails is told, and takes nothing of what others measured.
func TestSectionsThatFail(t *testing.T) {
	b := &bench{out: t.TempDir()}
	err := b.runAll(t.Context(), []section{
		{"one", nil, func(context.Context) error { return errors.New("a node broke") }},
		{"two", nil, func(context.Context) error {
			b.add(comparison{section: "two", name: "all", unit: "s", ours: "two", scale: 1, statistic: "median"}.line([]pair{{ours: 7}}, 0, ""))
			return nil
		}},
	})
	if err == nil || !strings.Contains(err.Error(), "one: a node broke") {
		t.Errorf("got %v", err)
	}
	text, err := os.ReadFile(filepath.Join(b.out, "report.txt"))
	if err != nil || !strings.Contains(string(text), "one ended early: a node broke") || !strings.Contains(string(text), "7.000 s") {
		t.Errorf("%v in\n%s", err, text)
	}
}

func TestBenchmarkLines(t *testing.T) {
	lines := benchmarkLines([]byte(`goos: linux
pkg: example.org/a/b
BenchmarkReader/fast-2   	     100	   1000 ns/op	  12.5 MB/s
BenchmarkReader/fast-2   	     100	   3000 ns/op	  10.5 MB/s
PASS
ok  	example.org/a/b	1.2s
`))
	if len(lines) != 2 || lines[0].Name != "Reader/fast, µs" || lines[0].Value != 2 || lines[1].Unit != "MB/s" || lines[1].Value != 11.5 {
		t.Errorf("%+v", lines)
	}
	found, err := benchmarked("../..")
	if err != nil || !slices.Contains(found, "./imagecache/inflate") {
		t.Errorf("%v, %v", found, err)
	}
}

// benchstat reads what is written: a line for each run that ended well.
func TestBenchFormat(t *testing.T) {
	results := []result{{"Pull/cold", []Sample{
		{Variant: baseBuild, Wall: 1.5, CPU: 2, RSS: 1 << 20, Written: 1000},
		{Variant: headBuild, Wall: 1},
		{Variant: baseBuild, Wall: 9, Code: 1},
		{Variant: baseBuild, Wall: 2},
	}}}
	want := "BenchmarkPull/cold 1 1500000000 ns/op 2000000000 cpu-ns/op 1048576 max-RSS-B 1000 written-B\nBenchmarkPull/cold 1 2000000000 ns/op\n"
	if got := string(benchFormat(results, baseBuild)); got != want {
		t.Errorf("got\n%s", got)
	}
}
