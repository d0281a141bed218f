package fault

import (
	"errors"
	"fmt"
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
