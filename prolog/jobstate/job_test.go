package jobstate

import (
	"strings"
	"testing"
)

func TestParseJobID(t *testing.T) {
	for id, pbs := range map[string]bool{"0": false, "4294967295": false, "4711.server": true, "4711[3].server-2.example_1": true} {
		got, err := ParseJobID(id)
		if err != nil || string(got) != id || got.IsPBS() != pbs {
			t.Errorf("%q: %q, %v, %v", id, got, got.IsPBS(), err)
		}
	}
	for _, id := range []string{
		"", "-1", "+1", "4294967296", "0x1", "1 ", "2_1", "1/../2", "..", ".", "1.", "1..", "1./x", "a.b", "1[].s", "1[2.s", "1.s\n", "1.s\x00",
		"1." + strings.Repeat("s", maxJobID),
	} {
		if got, err := ParseJobID(id); err == nil {
			t.Errorf("accepted %q as %q", id, got)
		}
	}
}
