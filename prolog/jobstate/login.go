package jobstate

import (
	"context"
	"fmt"

	"github.com/berth-hpc/berth/fault"
)

// A LoginWanted is a registry's refusal after the node looked for the user's
// login in vain. The job's session may know one: there are credential helpers,
// variables, and tickets for home folders.
type LoginWanted struct {
	Registry   string `json:"registry"`
	Repository string `json:"repository"`
	// Tried names the login that the registry did not take, "" for none.
	Tried string `json:"tried,omitempty"`
	// Answer is the registry's, and what the user can do about it.
	Answer fault.Message `json:"answer"`
}

// A LoginWantedError is the failure of a preparation that a login might change.
type LoginWantedError struct {
	LoginWanted
	failure error
}

// Error is the failure's text.
func (e *LoginWantedError) Error() string { return e.failure.Error() }

// Unwrap returns the failure as it stands where nobody brings a login.
func (e *LoginWantedError) Unwrap() error { return e.failure }

// Plain is the failure where the session has no login either.
func (e *LoginWantedError) Plain() error { return e.Answer.Err() }

// Without is the failure where the session could not be asked, for a reason.
func (e *LoginWantedError) Without(reason error) error {
	m := e.Answer
	m.Text += fmt.Sprintf(" (your job's session gave no login: %v)", reason)
	if remedy := fault.Remedy(reason); remedy != "" {
		m.Remedy = remedy + "; or " + m.Remedy
	}
	return m.Err()
}

// Again starts a preparation that wanted a login once more, with login, as
// credentials.WriteAnswer has it: through pipes, and kept nowhere. A worker
// that is at it already, or an outcome that stands, makes it void.
func Again(ctx context.Context, berth []string, runDir string, r Request, login string) (Folder, error) {
	return Locate(runDir, r), prepare(ctx, berth, r, login)
}
