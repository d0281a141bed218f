package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
)

// TestJSONForTerminals: what --json prints says the same as what it is made of,
// and nothing to a terminal.
func TestJSONForTerminals(t *testing.T) {
	want := "é 漢字 \x1b[2J\u009b2J\u202eback\u2028line\U000e0001tag\x7f \"quoted\" <a>"
	var out bytes.Buffer
	s := &session{process: process{stdout: &out}}
	if err := s.printJSON(map[string]string{"x": want}); err != nil {
		t.Fatal(err)
	}
	if strings.ContainsAny(out.String(), "\x1b\u009b\u202e\u2028\U000e0001\x7f") || !strings.Contains(out.String(), "é 漢字") {
		t.Errorf("%q", out.String())
	}
	var got map[string]string
	if err := json.Unmarshal(out.Bytes(), &got); err != nil || got["x"] != want {
		t.Errorf("%q, %v", got["x"], err)
	}
}
