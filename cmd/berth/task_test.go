package main

import (
	"errors"
	"slices"
	"testing"

	"github.com/berth-hpc/berth/fault"
)

func TestUnescapeArguments(t *testing.T) {
	got, err := unescapeArguments([]string{"=/bin/a b", "=", "=a%0Ab", "=%25x", "=%C3%BC", "=--", "=+"})
	if want := []string{"/bin/a b", "", "a\nb", "%x", "ü", "--", "+"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%q, %v; want %q", got, err, want)
	}
	for _, bad := range [][]string{nil, {"a"}, {"=%"}, {"=%zz"}, {"=a", ""}} {
		if got, err := unescapeArguments(bad); err == nil {
			t.Errorf("%q: %q", bad, got)
		}
	}
}

// Whoever is to blame, a task that did not start ends with 125.
func TestNotStarted(t *testing.T) {
	for _, blame := range []fault.Blame{fault.User, fault.Site, fault.Bug} {
		err := notStarted{&fault.Error{Op: "pull", Blame: blame, Remedy: "look", Err: errors.New("no")}}
		out := &pipe{}
		if code := report(out, err); code != 125 || out.text != "berth: error: pull: no\nberth:   look\n" {
			t.Errorf("%v: %d, %q", blame, code, out.text)
		}
	}
}

type pipe struct{ text string }

func (p *pipe) Write(data []byte) (int, error) {
	p.text += string(data)
	return len(data), nil
}

func TestPathWith(t *testing.T) {
	for in, want := range map[string]string{
		"cwd=/\x00env=PATH=/a:/b\x00": "/a:/b:/opt/pbs/bin", "cwd=/\x00env=X=y\x00": "/own:/opt/pbs/bin", "nonsense": "",
	} {
		if got := pathWith([]byte(in), "/own", "/opt/pbs"); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
	if got := pathWith([]byte("env=PATH=/a\x00"), "/own", ""); got != "" {
		t.Errorf("without PBS: %q", got)
	}
}
