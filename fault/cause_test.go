package fault

import (
	"errors"
	"fmt"
	"testing"
)

// What a failure is counted by survives wrapping and travelling; a less trusted
// process invents no word.
func TestCauseOf(t *testing.T) {
	inner := &Error{Op: "resolve", Blame: User, Cause: UnknownImage}
	for _, tc := range []struct {
		err  error
		want string
	}{
		{errors.New("x"), "bug"},
		{&Error{Op: "a", Blame: Site}, "site"},
		{inner, UnknownImage},
		{fmt.Errorf("above: %w", &Error{Op: "b", Blame: Site, Err: inner}), UnknownImage},
		{&Error{Op: "b", Cause: Deadline, Err: inner}, UnknownImage},
	} {
		m := NewMessage(tc.err)
		if got := CauseOf(tc.err); got != tc.want || m.Counted() != tc.want || CauseOf(m.Err()) != tc.want {
			t.Errorf("%v: %q, %q, want %q", tc.err, got, m.Counted(), tc.want)
		}
	}
	forged := &Message{Text: "x", Blame: "user", Cause: "a label of mine"}
	if got := forged.Counted(); got != "user" {
		t.Errorf("forged: %q", got)
	}
}
