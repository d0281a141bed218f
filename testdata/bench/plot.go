package main

import (
	"fmt"
	"html"
	"html/template"
	"math"
	"slices"
	"strings"
)

// Plots are SVG for the inside of an HTML page, of a fixed width; their classes
// are in page.tmpl. A browser scales them.
const (
	plotWidth = 760
	plotRight = 20
	rowHeight = 26
	axisSpace = 34
	nameWidth = 200 // left of strips
	longNames = 400 // left of ratios
)

// A drawing collects SVG: rows with names on their left and an axis below.
type drawing struct {
	b    strings.Builder
	left float64
}

func (d *drawing) line(class string, x1, y1, x2, y2 float64) {
	fmt.Fprintf(&d.b, `<line class="%s" x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f"/>`, class, x1, y1, x2, y2)
}

func (d *drawing) dot(class string, x, y, r float64) {
	fmt.Fprintf(&d.b, `<circle class="%s" cx="%.1f" cy="%.1f" r="%.1f"/>`, class, x, y, r)
}

func (d *drawing) box(class string, x, y, w, h float64) {
	fmt.Fprintf(&d.b, `<rect class="%s" x="%.1f" y="%.1f" width="%.1f" height="%.1f"/>`, class, x, y, w, h)
}

func (d *drawing) text(anchor string, x, y float64, s string) {
	fmt.Fprintf(&d.b, `<text text-anchor="%s" x="%.1f" y="%.1f">%s</text>`, anchor, x, y, html.EscapeString(s))
}

// svg ends the drawing. What is in it was escaped.
func (d *drawing) svg(height float64, label string) template.HTML {
	return template.HTML(fmt.Sprintf(`<svg viewBox="0 0 %d %.0f" role="img" aria-label="%s">%s</svg>`+"\n",
		plotWidth, height, html.EscapeString(label), d.b.String()))
}

// name shortens what is left of a plot.
func (d *drawing) name(y float64, s string) {
	most := int(d.left) / 7 // letters
	if r := []rune(s); len(r) > most {
		s = string(r[:most-1]) + "…"
	}
	d.text("end", d.left-10, y+4, s)
}

// A strip is one row of a plot: every measurement a dot.
type strip struct {
	name, class string
	s           *Summary
}

// strips draws rows over one axis that begins at 0, or at the smallest of them
// below it.
func strips(rows []strip, unit string) template.HTML {
	low, high := 0.0, 0.0
	for _, r := range rows {
		for _, v := range r.s.Values {
			low, high = min(low, v), max(high, v)
		}
	}
	if high == low {
		high = low + 1
	}
	d := drawing{left: nameWidth}
	at := func(v float64) float64 { return d.left + (v-low)/(high-low)*(plotWidth-d.left-plotRight) }
	bottom := float64(len(rows)*rowHeight + 6)
	for _, v := range ticks(low, high) {
		d.line("grid", at(v), 0, at(v), bottom)
		d.text("middle", at(v), bottom+14, number(v))
	}
	d.line("axis", d.left, bottom, plotWidth-plotRight, bottom)
	d.text("end", plotWidth-plotRight, bottom+28, unit)
	for i, r := range rows {
		y := float64(i*rowHeight) + rowHeight/2 + 2
		d.name(y, r.name)
		d.box(r.class+" box", at(r.s.P10), y-8, max(at(r.s.P90)-at(r.s.P10), 1), 16)
		for j, v := range r.s.Values {
			d.dot(r.class+" dot", at(v), y+float64(j%5-2)*2.5, 2.5) // beside each other, where they are the same
		}
		d.line(r.class+" median", at(r.s.Median), y-9, at(r.s.Median), y+9)
	}
	return d.svg(bottom+axisSpace, "measurements of "+names(rows))
}

func names(rows []strip) string {
	var all []string
	for _, r := range rows {
		all = append(all, r.name)
	}
	return strings.Join(all, ", ")
}

// forest draws the ratios of lines and their intervals over one logarithmic axis;
// "" when there are none.
func forest(lines []Line) template.HTML {
	lines = slices.DeleteFunc(slices.Clone(lines), func(l Line) bool { return l.Compare != "ratio" || l.Interval == nil || l.Interval.Low <= 0 })
	if len(lines) == 0 {
		return ""
	}
	low, high := 0.5, 2.0
	for _, l := range lines {
		low, high = min(low, l.Interval.Low), max(high, l.Interval.High)
	}
	d := drawing{left: longNames}
	at := func(v float64) float64 {
		return d.left + math.Log(v/low)/math.Log(high/low)*(plotWidth-d.left-plotRight)
	}
	bottom := float64(len(lines)*rowHeight + 6)
	for _, v := range []float64{0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100} {
		if low <= v && v <= high {
			d.line(map[bool]string{true: "one", false: "grid"}[v == 1], at(v), 0, at(v), bottom)
			d.text("middle", at(v), bottom+14, number(v))
		}
	}
	d.line("axis", d.left, bottom, plotWidth-plotRight, bottom)
	for i, l := range lines {
		y := float64(i*rowHeight) + rowHeight/2 + 2
		d.name(y, l.Section+": "+l.Name)
		d.line("ours interval", at(l.Interval.Low), y, at(l.Interval.High), y)
		d.dot("ours", at(l.Value), y, 4)
		if l.Target != nil && low <= l.Target.Most && l.Target.Most <= high {
			d.line("target", at(l.Target.Most), y-10, at(l.Target.Most), y+10)
		}
	}
	return d.svg(bottom+axisSpace, "ratios and their intervals")
}

// ticks are at most seven round numbers from low to high.
func ticks(low, high float64) []float64 {
	step := math.Pow(10, math.Floor(math.Log10((high-low)/5)))
	for _, f := range []float64{1, 2, 5, 10} {
		if (high-low)/(f*step) <= 6 {
			step *= f
			break
		}
	}
	var all []float64
	for i := math.Ceil(low / step); i*step <= high; i++ {
		all = append(all, i*step)
	}
	return all
}

// number writes v without needless digits.
func number(v float64) string { return fmt.Sprintf("%g", math.Round(v*1e6)/1e6) }
