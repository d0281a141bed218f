package fault

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

func TestWrap(t *testing.T) {
	cause := errors.New("disk full")
	err := Wrap("write", "file", Site, "make room", cause)
	for _, e := range []error{err, fmt.Errorf("above: %w", err), Wrap("again", "x", User, "no", err)} {
		if Of(e) != Site || Remedy(e) != "make room" || !errors.Is(e, cause) {
			t.Errorf("%v: %v, %q", e, Of(e), Remedy(e))
		}
	}
	if got := err.Error(); got != "write file: disk full" {
		t.Errorf("got %q", got)
	}
	if Wrap("write", "file", Site, "", nil) != nil {
		t.Error("no error became one")
	}
}

func TestRemedyOfTheInnerFault(t *testing.T) {
	err := &Error{Op: "pull", Blame: User, Err: &Error{Op: "resolve", Blame: Site, Remedy: "wait"}}
	if Remedy(err) != "wait" || Of(err) != User {
		t.Errorf("%q %v", Remedy(err), Of(err))
	}
	if Of(errors.New("x")) != Bug || Remedy(errors.New("x")) != "" {
		t.Error("an error of no blame is not a bug")
	}
}

func TestBlame(t *testing.T) {
	for blame, status := range map[Blame]int{Bug: 70, User: 64, Site: 75} {
		if blame.ExitStatus() != status || ParseBlame(blame.String()) != blame {
			t.Errorf("%v: %d, %v", blame, blame.ExitStatus(), ParseBlame(blame.String()))
		}
	}
	if ParseBlame("nonsense") != Bug {
		t.Error("nonsense is nobody's fault but ours")
	}
}

func TestMessage(t *testing.T) {
	err := Wrap("pull", "x:1", User, "check\nthe name", errors.New("no\x00such\x1b[31m image"))
	m := NewMessage(err)
	if m.Text != "pull x:1: no such [31m image" || m.Remedy != "check the name" || m.Blame != "user" {
		t.Errorf("%+v", m)
	}
	again := m.Err()
	if again.Error() != m.Text || Of(again) != User || Remedy(again) != m.Remedy {
		t.Errorf("%v", again)
	}
	// What a less trusted process made up is cleaned on arrival.
	if got := (&Message{Text: "a\x1bb", Blame: "x"}).Err(); got.Error() != "a b" || Of(got) != Bug {
		t.Errorf("%q", got)
	}
	if got := len(Clean(strings.Repeat("x", 1<<20))); got != maxText {
		t.Errorf("%d characters", got)
	}
}
