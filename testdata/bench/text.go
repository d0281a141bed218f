package main

import (
	"fmt"
	"strings"
	"text/tabwriter"
	"time"
)

// String is the report as text.
func (r Report) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "Berth %s, %s to %s\n%s\n%d rounds of %s\n\n", r.Revision, r.Began.Format(time.DateTime), r.Ended.Format(time.DateTime),
		r.Machine, r.Rounds, strings.Join(r.Sections, ", "))
	for _, f := range r.Failures {
		fmt.Fprintf(&b, "%s ended early: %s\n\n", f.Section, f.Why)
	}
	b.WriteString(r.targets() + "\n")
	for _, p := range r.Peers {
		fmt.Fprintf(&b, "%s\n", p)
	}
	b.WriteString("\n")
	for _, t := range r.Tables {
		fmt.Fprintf(&b, "%s\n", t)
	}
	for _, l := range r.Lines {
		fmt.Fprintf(&b, "%s\n", l)
	}
	return b.String()
}

// targets lists what is held to a target.
func (r Report) targets() string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, l := range r.Lines {
		if l.Target != nil {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", l.Section, l.Name, l.value(), l.goal(), l.verdict())
		}
	}
	w.Flush() // into memory
	return b.String()
}

// String renders a line as a few lines of text.
func (l Line) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, %s\n", l.Section, l.Name)
	if l.Missing != "" {
		fmt.Fprintf(&b, "  %-22s %s\n", "not measured", l.Missing)
		return b.String()
	}
	if l.Base != nil {
		fmt.Fprintf(&b, "  %-22s %s\n", l.BaseName, l.side(*l.Base))
	}
	fmt.Fprintf(&b, "  %-22s %s\n", l.OursName, l.side(*l.Ours))
	fmt.Fprintf(&b, "  %-22s %s, %s", l.Compare, l.value(), l.count())
	b.WriteString("\n")
	if l.Target != nil {
		fmt.Fprintf(&b, "  %-22s %s: %s\n", "target", l.goal(), l.verdict())
	}
	return b.String()
}

func (l Line) side(s Summary) string {
	return fmt.Sprintf("%.3f %s (p10 %.3f, p90 %.3f)", s.Median, l.Unit, s.P10, s.P90)
}

// value is what the line comes to, with its interval.
func (l Line) value() string {
	if l.Missing != "" {
		return "not measured"
	}
	if l.Interval == nil {
		return fmt.Sprintf("%.3f%s (too few rounds for an interval)", l.Value, l.valueUnit())
	}
	return fmt.Sprintf("%.3f%s (95 %%: %.3f to %.3f)", l.Value, l.valueUnit(), l.Interval.Low, l.Interval.High)
}

// valueUnit is Value's, with a space before it.
func (l Line) valueUnit() string {
	if l.Compare == "ratio" {
		return " ×"
	}
	return " " + l.Unit
}

func (l Line) count() string {
	s := fmt.Sprintf("%d rounds", l.Ours.N)
	if l.Dropped > 0 {
		s += fmt.Sprintf(" (%d more with a failed run dropped: %s)", l.Dropped, l.Failed)
	}
	return s
}

// goal is the target in words.
func (l Line) goal() string {
	if l.Target == nil {
		return ""
	}
	s := fmt.Sprintf("≤ %g%s", l.Target.Most, l.valueUnit())
	if l.Target.Within {
		s = "the interval reaches " + s
	}
	if l.Target.Pairs > 0 {
		s += fmt.Sprintf(" in %d rounds", l.Target.Pairs)
	}
	return s
}

// verdict says whether the target was met.
func (l Line) verdict() string {
	switch {
	case l.Target == nil:
		return ""
	case l.Missing != "":
		return "not measured: " + l.Missing
	case l.Met == nil:
		return fmt.Sprintf("not judged: %d rounds of %d", l.Ours.N, max(l.Target.Pairs, fewest))
	}
	word := "MISSED"
	if *l.Met {
		word = "met"
	}
	switch in := l.Interval; {
	case in == nil:
		word += fmt.Sprintf(", in %d rounds: more would say more", l.Ours.N)
	case !l.Target.Within && in.Low < l.Target.Most && l.Target.Most < in.High:
		word += ", but the interval holds the target: more rounds would say more"
	}
	return word
}
