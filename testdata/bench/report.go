package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// A Line of the report compares two sides, or states one. Values are in Unit.
type Line struct {
	Section  string   `json:"section"`
	Name     string   `json:"name"`
	Unit     string   `json:"unit"`
	BaseName string   `json:"base_name,omitempty"`
	Base     *Summary `json:"base,omitempty"`
	OursName string   `json:"ours_name"`
	Ours     Summary  `json:"ours"`
	// Compare says what Value is: "ratio", "difference" or "median".
	Compare  string   `json:"compare"`
	Value    float64  `json:"value"`
	Interval Interval `json:"interval"` // of Value, 95 %
	Dropped  int      `json:"dropped"`  // rounds in which a run failed
	Target   *float64 `json:"target,omitempty"`
	Met      *bool    `json:"met,omitempty"`
}

// A Report is all of one run.
type Report struct {
	Machine string  `json:"machine"`
	Tables  []Table `json:"tables,omitempty"`
	Lines   []Line  `json:"lines"`
}

// A comparison is how a line is made of pairs.
type comparison struct {
	section, name, unit string
	base, ours          string  // names of the sides; base "" for none
	scale               float64 // from the pairs' unit to unit
	statistic           string
	target              float64 // the most that Value may be (the least for atLeast); 0 for none
	atLeast             bool
}

func (c comparison) line(ps []pair, dropped int) (Line, error) {
	if len(ps) == 0 {
		return Line{}, fmt.Errorf("%s: %s: no round of %d was usable", c.section, c.name, dropped)
	}
	scaled := make([]pair, len(ps))
	for i, p := range ps {
		scaled[i] = pair{p.base * c.scale, p.ours * c.scale}
	}
	base, ours := split(scaled)
	f := map[string]statistic{"ratio": ratio, "difference": difference, "median": middle}[c.statistic]
	l := Line{
		Section: c.section, Name: c.name, Unit: c.unit, OursName: c.ours, Ours: summarize(ours),
		Compare: c.statistic, Value: f(scaled), Interval: bootstrap(scaled, f), Dropped: dropped,
	}
	if c.base != "" {
		s := summarize(base)
		l.BaseName, l.Base = c.base, &s
	}
	c.judge(&l)
	return l, nil
}

func (c comparison) judge(l *Line) {
	if c.target == 0 {
		return
	}
	met := l.Value <= c.target
	if c.atLeast {
		met = l.Value >= c.target
	}
	l.Target, l.Met = &c.target, &met
}

func (l Line) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, %s\n", l.Section, l.Name)
	if l.Base != nil {
		fmt.Fprintf(&b, "  %-22s %s\n", l.BaseName, l.side(*l.Base))
	}
	fmt.Fprintf(&b, "  %-22s %s\n", l.OursName, l.side(l.Ours))
	unit := " " + l.Unit
	if l.Compare == "ratio" {
		unit = ""
	}
	fmt.Fprintf(&b, "  %-22s %.3f%s, 95 %% interval %.3f to %.3f, %d rounds", l.Compare, l.Value, unit, l.Interval.Low, l.Interval.High, l.Ours.N)
	if l.Dropped > 0 {
		fmt.Fprintf(&b, " (%d more with a failed run dropped)", l.Dropped)
	}
	b.WriteString("\n" + l.verdict(unit))
	return b.String()
}

func (l Line) side(s Summary) string {
	return fmt.Sprintf("%.3f %s (p10 %.3f, p90 %.3f)", s.Median, l.Unit, s.P10, s.P90)
}

func (l Line) verdict(unit string) string {
	if l.Target == nil {
		return ""
	}
	word := "MISSED"
	if *l.Met {
		word = "met"
	}
	if l.Interval.Low < *l.Target && *l.Target < l.Interval.High {
		word += ", but the interval holds the target: more rounds would say more"
	}
	return fmt.Sprintf("  %-22s %g%s: %s\n", "target", *l.Target, unit, word)
}

// write leaves report.txt and report.json in a folder.
func (r Report) write(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	var text strings.Builder
	fmt.Fprintf(&text, "%s\n\n", r.Machine)
	for _, t := range r.Tables {
		fmt.Fprintf(&text, "%s\n", t)
	}
	for _, l := range r.Lines {
		fmt.Fprintf(&text, "%s\n", l)
	}
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "report.txt"), []byte(text.String()), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "report.json"), append(data, '\n'), 0o644)
}
