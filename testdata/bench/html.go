package main

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
)

//go:embed page.tmpl
var pageText string

// A page is what page.tmpl shows: the report, and what is drawn of it. It loads
// nothing: styles and plots are in it.
type page struct {
	Report
	Judged []lineView
	Forest template.HTML
	Tables []tableView
	Groups []groupView
}

type lineView struct {
	Section, Name, Missing, Compare string
	Value, Count, Goal              string
	Verdict, Class                  string
	Plot                            template.HTML
}

// A groupView is the lines of a section.
type groupView struct {
	Title string
	Lines []lineView
}

type tableView struct {
	Title   string
	Columns []string
	Rows    []rowView
	Plots   []plotView
}

type rowView struct {
	Name, Missing string
	Cells         []string
	Span, Rounds  int
}

type plotView struct {
	Title string
	Plot  template.HTML
}

// html is the report as one page that needs no other file. It is well-formed XML.
func (r Report) html() ([]byte, error) {
	t, err := template.New("page").Parse(pageText)
	if err != nil {
		return nil, err
	}
	p := page{Report: r, Forest: forest(r.Lines)}
	places := map[string]int{}
	for _, l := range r.Lines {
		v := l.view()
		if l.Target != nil {
			p.Judged = append(p.Judged, v)
		}
		at, ok := places[l.Section]
		if !ok {
			at = len(p.Groups)
			places[l.Section] = at
			p.Groups = append(p.Groups, groupView{Title: l.Section})
		}
		p.Groups[at].Lines = append(p.Groups[at].Lines, v)
	}
	for _, table := range r.Tables {
		p.Tables = append(p.Tables, table.view())
	}
	var b bytes.Buffer
	err = t.Execute(&b, p)
	return b.Bytes(), err
}

func (l Line) view() lineView {
	v := lineView{
		Section: l.Section, Name: l.Name, Missing: l.Missing, Compare: l.Compare,
		Value: l.value(), Goal: l.goal(), Verdict: l.verdict(), Class: "open",
	}
	if l.Met != nil {
		v.Class = map[bool]string{true: "met", false: "missed"}[*l.Met]
	}
	if l.Missing != "" {
		return v
	}
	v.Count = l.count()
	var sides []strip
	if l.Base != nil {
		sides = append(sides, strip{l.BaseName, "base", l.Base})
	}
	v.Plot = strips(append(sides, strip{l.OursName, "ours", l.Ours}), l.Unit)
	return v
}

func (t Table) view() tableView {
	v := tableView{Title: t.Title, Columns: t.Columns}
	sides := make([][]strip, len(t.Columns))
	for _, r := range t.Rows {
		row := rowView{Name: r.Name, Missing: r.Missing, Span: len(t.Columns) + 1, Rounds: r.Rounds()}
		for i, c := range r.Cells {
			row.Cells = append(row.Cells, fmt.Sprintf("%.2f", c.Median))
			class := "base"
			if r.Ours {
				class = "ours"
			}
			sides[i] = append(sides[i], strip{r.Name, class, c})
		}
		v.Rows = append(v.Rows, row)
	}
	for i, column := range t.Columns {
		if len(sides[i]) > 0 {
			v.Plots = append(v.Plots, plotView{column, strips(sides[i], "")})
		}
	}
	return v
}
