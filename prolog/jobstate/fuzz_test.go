package jobstate

import (
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// FuzzJobID: an id is one harmless element of a path, and a job has one id.
func FuzzJobID(f *testing.F) {
	for _, s := range []string{"4711", "4711.server", "12[3].pbs.example.org", "1[].s", "+1", "007", "4294967296", "1.a/b", "1..", ".", "1.\n", "1.a ", strings.Repeat("1", 19) + ".a", "1." + strings.Repeat("a", 199)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		id, err := ParseJobID(s)
		if err != nil {
			return
		}
		if string(id) != s || len(s) > maxJobID || !filepath.IsLocal(s) || filepath.Base(s) != s || strings.ContainsAny(s, " \n\x00$`'\"*?|&;") {
			t.Errorf("%q is taken", s)
		}
		n, err := strconv.ParseUint(s, 10, 32)
		if (err == nil) == id.IsPBS() || err == nil && strconv.FormatUint(n, 10) != s {
			t.Errorf("%q: a number %v, PBS's %v", s, err == nil, id.IsPBS())
		}
	})
}
