package main

import (
	"fmt"
	"strings"
	"text/tabwriter"
)

// A Table puts several sides beside each other.
type Table struct {
	Title   string   `json:"title"`
	Columns []string `json:"columns"`
	Rows    []Row    `json:"rows"`
}

// A Row is one side: what was measured of it, by column, or why there is nothing.
type Row struct {
	Name    string     `json:"name"`
	Ours    bool       `json:"ours,omitempty"`
	Cells   []*Summary `json:"cells,omitempty"`
	Missing string     `json:"missing,omitempty"`
}

// String renders the table as text: medians.
func (t Table) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, medians\n", t.Title)
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(w, "\t%s\trounds\t\n", strings.Join(t.Columns, "\t"))
	for _, r := range t.Rows {
		if r.Missing != "" {
			continue
		}
		fmt.Fprintf(w, "%s\t", r.Name)
		for _, c := range r.Cells {
			fmt.Fprintf(w, "%.2f\t", c.Median)
		}
		fmt.Fprintf(w, "%d\t\n", r.Rounds())
	}
	w.Flush() // into memory
	for _, r := range t.Rows {
		if r.Missing != "" {
			fmt.Fprintf(&b, "  %s: not measured: %s\n", r.Name, r.Missing)
		}
	}
	return b.String()
}

// Rounds is how often the side was measured.
func (r Row) Rounds() int {
	if len(r.Cells) == 0 {
		return 0
	}
	return r.Cells[0].N
}
