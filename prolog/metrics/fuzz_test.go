package metrics

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

// FuzzFold: whatever a crash has left of the spool and of the sums, what is noted
// afterwards is counted, and Prometheus can read the text.
func FuzzFold(f *testing.F) {
	f.Add([]byte("{\"hit\":true,\"account\":\"a\\n\\\"\"}\n{\"seconds\":{\"pull\":1.5},\"pulled\":9223372036854775807}\n{\"pulled\":9223372036854775807}\n"), []byte(`{"folded":1,"accounts":{"x":{"hits":-1}},"phases":{"p":{"counts":[1]}}}`))
	f.Add(bytes.Repeat([]byte{0}, 100<<10), []byte(`{"accounts":{"x":null},"phases":{"p":null}}`))
	f.Add([]byte("{\"account\":\"a\xff\",\"failure\":\"\\u0000\"}\n"), []byte("{"))
	line := regexp.MustCompile(`^(# (HELP|TYPE) [a-z_]+ .*|[a-z_]+(\{([a-z_]+="([^"\\\n]|\\["\\n])*",?)+\})? -?[0-9.e+-]+)$`)
	f.Fuzz(func(t *testing.T, spool, sums []byte) {
		dir := t.TempDir()
		for name, data := range map[string][]byte{spoolName: append(bytes.Clone(spool), '\n'), sumsName: sums, lockName: nil} {
			if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := Append(dir, Event{Account: "good", Hit: true}); err != nil {
			t.Fatal(err)
		}
		textfile := filepath.Join(dir, "text")
		if err := Fold(t.Context(), dir, textfile); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(textfile)
		if err != nil {
			t.Fatal(err)
		}
		for l := range bytes.Lines(text) {
			if l = bytes.TrimSuffix(l, []byte{'\n'}); !line.Match(l) {
				t.Errorf("%q", l)
			}
		}
		s, err := Load(dir)
		if err != nil {
			t.Fatal(err)
		}
		if a := s.Accounts["good"]; len(s.Accounts) < maxAccounts && (a == nil || a.Hits < 1) {
			t.Errorf("not counted: %+v", a)
		}
	})
}
