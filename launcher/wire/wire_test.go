package wire

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestRoundTrip(t *testing.T) {
	for name, m := range map[string]Message{
		"empty":       nil,
		"one":         {{"job", "12"}},
		"repeated":    {{"env", "A"}, {"env", "B"}, {"home", "0"}},
		"empty value": {{"digest", ""}},
		"any byte":    {{"mounts", "a=b\n\xff,:"}},
	} {
		t.Run(name, func(t *testing.T) {
			data, err := m.Encode()
			if err != nil {
				t.Fatal(err)
			}
			got, err := Decode(data)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(m, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestGetAndAll(t *testing.T) {
	m := Message{{"env", "A"}, {"job", "1"}, {"env", "B"}}
	if got := m.Get("env"); got != "B" {
		t.Errorf("Get: %q, want the last one", got)
	}
	if got := m.Get("none"); got != "" {
		t.Errorf("Get of nothing: %q", got)
	}
	if diff := cmp.Diff([]string{"A", "B"}, m.All("env")); diff != "" {
		t.Error(diff)
	}
}

func TestRefused(t *testing.T) {
	for name, m := range map[string]Message{
		"NUL in a value": {{"image", "a\x00uid=0"}},
		"no key":         {{"", "x"}},
		"bad key":        {{"a=b", "x"}},
		"too long":       {{"image", strings.Repeat("x", MaxMessage)}},
	} {
		if _, err := m.Encode(); err == nil {
			t.Errorf("encoded: %s", name)
		}
	}
	for name, data := range map[string]string{
		"cut off": "job=1", "no equals sign": "job\x00", "no key": "=1\x00", "empty record": "\x00",
		"upper case": "JOB=1\x00", "too long": "a=" + strings.Repeat("x", MaxMessage) + "\x00",
	} {
		if _, err := Decode([]byte(data)); err == nil {
			t.Errorf("decoded: %s", name)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte("job=1\x00uid=0\x00"))
	f.Add([]byte("a=\x00b"))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := Decode(data)
		if err != nil {
			return
		}
		again, err := m.Encode()
		if err != nil {
			t.Fatalf("decoded but not encoded: %v", err)
		}
		if !bytes.Equal(data, again) {
			t.Fatalf("%q became %q", data, again)
		}
	})
}
