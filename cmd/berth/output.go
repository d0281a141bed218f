package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/berth-hpc/berth/imagecache/store"
)

// printJSON prints v the way `--json` does everywhere: indented, one value.
func (s *session) printJSON(v any) error {
	e := json.NewEncoder(s.stdout)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// megabytes writes a size as people compare sizes: 10^6 bytes, one decimal.
func megabytes(n int64) string { return fmt.Sprintf("%.1f MB", float64(n)/1e6) }

// orDash shows an empty cell.
func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// sortedKeys returns m's keys in order, for output that is the same each time.
func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// short is a digest as it fits a table: enough to be unique on a disk.
func short(d store.Digest) string {
	s := d.String()
	return s[:min(len("sha256:")+12, len(s))]
}
