package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"time"
)

// A Report is all of one run. It is written after each section, so that what ends
// a run early loses nothing.
type Report struct {
	Began    time.Time `json:"began"`
	Ended    time.Time `json:"ended"`
	Revision string    `json:"revision"` // of this repository
	Sections []string  `json:"sections"` // that were asked for
	Rounds   int       `json:"rounds"`   // that were asked for
	Machine  Machine   `json:"machine"`
	Peers    []Peer    `json:"peers"`
	Tables   []Table   `json:"tables,omitempty"`
	Lines    []Line    `json:"lines"`
	Failures []Failure `json:"failures,omitempty"`
}

// A Failure is a section that ended early, and why.
type Failure struct {
	Section string `json:"section"`
	Why     string `json:"why"`
}

// A Line of the report compares two sides, or states one. Values are in Unit.
type Line struct {
	Section  string   `json:"section"`
	Name     string   `json:"name"`
	Unit     string   `json:"unit"`
	BaseName string   `json:"base_name,omitempty"`
	Base     *Summary `json:"base,omitempty"`
	OursName string   `json:"ours_name"`
	Ours     *Summary `json:"ours,omitempty"`
	// Compare says what Value is: "ratio" or "difference" of the medians, "median" or
	// "most" of ours.
	Compare  string    `json:"compare"`
	Value    float64   `json:"value"`
	Interval *Interval `json:"interval,omitempty"` // of Value, 95 %; nil with fewer than fewest rounds
	Dropped  int       `json:"dropped,omitempty"`  // rounds in which a run failed
	Failed   string    `json:"failed,omitempty"`   // what the first of these said
	Missing  string    `json:"missing,omitempty"`  // why nothing was measured; then the numbers mean nothing
	Target   *Target   `json:"target,omitempty"`
	Met      *bool     `json:"met,omitempty"` // nil without a target, or when nothing can be said
}

// A Target is the most that a line's value may be.
type Target struct {
	Most float64 `json:"most"`
	// Within asks only that the interval holds a value of at most Most: for what
	// must not be worse, where single runs vary by more than what is looked for.
	Within bool `json:"within,omitempty"`
	// Pairs is how many rounds it takes to say so.
	Pairs int `json:"pairs,omitempty"`
}

func most(x float64) *Target { return &Target{Most: x} }

// judge says whether l meets the target; nil when l can't tell.
func (t Target) judge(l Line) *bool {
	if l.Missing != "" || l.Ours.N < t.Pairs || t.Within && l.Interval == nil {
		return nil
	}
	met := l.Value <= t.Most
	if t.Within {
		met = l.Interval.Low <= t.Most
	}
	return &met
}

// A comparison is how a line is made of pairs.
type comparison struct {
	section, name, unit string
	base, ours          string  // names of the sides; base "" for none
	scale               float64 // from the pairs' unit to unit
	statistic           string
	target              *Target
}

// line summarizes pairs. Without any it is a line that says why it has no numbers.
func (c comparison) line(ps []pair, dropped int, failed string) Line {
	l := Line{
		Section: c.section, Name: c.name, Unit: c.unit, BaseName: c.base, OursName: c.ours,
		Compare: c.statistic, Dropped: dropped, Failed: failed, Target: c.target,
	}
	if len(ps) == 0 {
		if l.Missing = failed; failed == "" {
			l.Missing = "no round was measured"
		}
		return l
	}
	scaled := make([]pair, len(ps))
	for i, p := range ps {
		scaled[i] = pair{p.base * c.scale, p.ours * c.scale}
	}
	base, ours := split(scaled)
	f := statistics()[c.statistic]
	if l.Value = f(scaled); math.IsNaN(l.Value) || math.IsInf(l.Value, 0) {
		return c.missing("there is no ratio to nothing")
	}
	l.Interval, l.Ours = bootstrap(scaled, f), summarize(ours)
	if c.base != "" {
		l.Base = summarize(base)
	}
	if c.target != nil {
		l.Met = c.target.judge(l)
	}
	return l
}

// missing is a line without numbers.
func (c comparison) missing(why string) Line { return c.line(nil, 0, why) }

// write leaves report.txt, report.json and report.html in a folder.
func (r Report) write(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	page, err := r.html()
	if err != nil {
		return fmt.Errorf("write the page: %w", err)
	}
	put := func(name string, data []byte) error { return os.WriteFile(filepath.Join(dir, name), data, 0o644) }
	return errors.Join(put("report.txt", []byte(r.String())), put("report.json", append(data, '\n')), put("report.html", page))
}
