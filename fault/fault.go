// Package fault is how every part of Berth reports a failure: what was being
// done, to what, who can fix it, and what that person should do.
//
// It imports nothing but the standard library, so that the smallest of
// Berth's programs can use it.
package fault

import "errors"

// Blame says who can fix a failure. It decides the exit status, and so
// whether the scheduler requeues the job.
type Blame int

const (
	// Bug is a fault of ours; exit 70.
	Bug Blame = iota
	// User is a bad reference, a missing file, no such command; exit 64.
	User
	// Site is a full disk, a registry that is down; exit 75, worth a requeue.
	Site
)

// String returns the word that travels between Berth's programs:
// "bug", "user" or "site".
func (b Blame) String() string {
	switch b {
	case User:
		return "user"
	case Site:
		return "site"
	default:
		return "bug"
	}
}

// ParseBlame is the inverse of String. Any other word is a Bug: whoever sent
// it broke the protocol.
func ParseBlame(word string) Blame {
	switch word {
	case "user":
		return User
	case "site":
		return Site
	default:
		return Bug
	}
}

// ExitStatus returns the exit status that tells a scheduler whom to blame
// (sysexits.h: EX_SOFTWARE, EX_USAGE, EX_TEMPFAIL).
func (b Blame) ExitStatus() int {
	switch b {
	case User:
		return 64
	case Site:
		return 75
	default:
		return 70
	}
}

// An Error is the step that failed: Op is its verb ("resolve", "mount"),
// Arg the one thing it acted on. Remedy is one line that tells the reader
// what to do; it may be empty where the cause says it all.
type Error struct {
	Op, Arg string
	Blame   Blame
	Remedy  string
	// Cause is one of Causes, "" where Blame says enough.
	Cause string
	Err   error
}

// Error returns one line: the step, what it acted on, and the cause. The
// remedy is not part of it; programs print that on a line of its own.
func (e *Error) Error() string {
	text := e.Op
	if e.Arg != "" {
		text += " " + e.Arg
	}
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	return text
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Of returns who can fix err: the blame of the outermost Error in its chain,
// and Bug if there is none.
func Of(err error) Blame {
	var f *Error
	if errors.As(err, &f) {
		return f.Blame
	}
	return Bug
}

// Remedy returns the line that tells the reader of err what to do, or ""
// if err carries none.
func Remedy(err error) string {
	var f *Error
	for errors.As(err, &f) {
		if f.Remedy != "" {
			return f.Remedy
		}
		err = f.Err
	}
	return ""
}

// Wrap says that op on arg failed because of err. It returns nil for a nil
// err. An err that already is a fault passes through unchanged: its own step
// is nearer to the cause, and a step is named once.
func Wrap(op, arg string, blame Blame, remedy string, err error) error {
	if err == nil {
		return nil
	}
	var f *Error
	if errors.As(err, &f) {
		return err
	}
	return &Error{Op: op, Arg: arg, Blame: blame, Remedy: remedy, Err: err}
}
