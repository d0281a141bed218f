package main

import (
	"fmt"
	"strings"
	"text/tabwriter"
)

// A Table puts medians of several sides beside each other.
type Table struct {
	Title   string   `json:"title"`
	Columns []string `json:"columns"`
	Rows    []Row    `json:"rows"`
}

// A Row is one side: its values by column, or why there are none.
type Row struct {
	Name    string    `json:"name"`
	N       int       `json:"n"` // rounds
	Values  []float64 `json:"values,omitempty"`
	Missing string    `json:"missing,omitempty"`
}

// String renders the table as text.
func (t Table) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n", t.Title)
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(w, "\t%s\trounds\t\n", strings.Join(t.Columns, "\t"))
	for _, r := range t.Rows {
		if r.Missing != "" {
			continue
		}
		fmt.Fprintf(w, "%s\t", r.Name)
		for _, v := range r.Values {
			fmt.Fprintf(w, "%.2f\t", v)
		}
		fmt.Fprintf(w, "%d\t\n", r.N)
	}
	w.Flush() // into memory
	for _, r := range t.Rows {
		if r.Missing != "" {
			fmt.Fprintf(&b, "  %s: %s\n", r.Name, r.Missing)
		}
	}
	return b.String()
}
