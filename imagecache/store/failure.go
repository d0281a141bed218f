package store

import (
	"errors"
	"os"
	"path/filepath"

	"github.com/berth-hpc/berth/fault"
)

// A failure is why the last holder of a lock gave up, for those who waited for
// it. Without it a thousand nodes would ask a registry that is down one after
// the other, each for as long as the first.
type failure struct {
	Holder   Holder        `json:"holder"`
	Tries    int           `json:"tries"` // in a row, each by one who had waited for the one before
	Unusable bool          `json:"unusable,omitempty"`
	Message  fault.Message `json:"message"`
}

// A PersonalError is a failure that is about who asked, not about the image: it
// is nobody else's answer, and nobody else's to read.
type PersonalError struct{ Err error }

// Error implements error.
func (e *PersonalError) Error() string { return e.Err.Error() }

// Unwrap returns the failure.
func (e *PersonalError) Unwrap() error { return e.Err }

func isPersonal(err error) bool {
	var personal *PersonalError
	return errors.As(err, &personal)
}

// maxTries is how many nodes try before all who wait take the answer: the
// first may have no network, or no rights in the store.
const maxTries = 2

// final says whether those who waited should take f for their own failure.
func (f *failure) final() bool {
	return f != nil && (f.Tries >= maxTries || f.Message.Blame == fault.User.String())
}

func (f *failure) err() error {
	if f.Unusable {
		return unusable("pull into the cluster's store on", f.Holder.Host, f.Message.Err())
	}
	return f.Message.Err()
}

func (c *Cluster) failurePath(d Digest) string {
	return filepath.Join(c.locksDir(), Key(d)+".failed")
}

// failureOf returns the failure of one of the holders in waitedFor, else nil.
func (c *Cluster) failureOf(d Digest, waitedFor map[string]bool) *failure {
	var f failure
	if err := readJSON(c.failurePath(d), &f); err != nil || !waitedFor[f.Holder.ID] {
		return nil
	}
	return &f
}

// recordFailure tells those who wait. That it cannot be written costs them
// the same attempt.
func (c *Cluster) recordFailure(d Digest, before *failure, h Holder, err error) {
	f := failure{Holder: h, Tries: 1, Unusable: errors.Is(err, ErrUnusable), Message: *fault.NewMessage(err)}
	if before != nil {
		f.Tries = before.Tries + 1
	}
	_ = WriteJSON(c.failurePath(d), 0o644, f)
}

func (c *Cluster) forgetFailure(d Digest) { _ = os.Remove(c.failurePath(d)) }
