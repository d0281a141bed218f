package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"unicode"
	"unicode/utf16"

	"github.com/berth-hpc/berth/imagecache/store"
)

// printJSON prints v the way `--json` does everywhere: indented, one value.
func (s *session) printJSON(v any) error {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return err
	}
	_, err := io.WriteString(s.stdout, escapeUnprintable(b.String()))
	return err
}

// escapeUnprintable writes what JSON lets stand but a terminal may act on, such
// as C1 controls and marks that turn a line around, as JSON's escapes.
func escapeUnprintable(text string) string {
	var b strings.Builder
	for _, r := range text {
		if r == '\n' || unicode.IsPrint(r) {
			b.WriteRune(r)
			continue
		}
		for _, unit := range utf16.Encode([]rune{r}) {
			fmt.Fprintf(&b, `\u%04x`, unit)
		}
	}
	return b.String()
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
