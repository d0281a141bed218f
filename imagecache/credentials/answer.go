package credentials

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/berth-hpc/berth/fault"
)

// An answer is what a process that looks for a login tells the one that
// started it, over a descriptor: one JSON value on one line. Without a login
// and without a failure there is none.
type answer struct {
	Login   *Revealed      `json:"login,omitempty"`
	Failure *fault.Message `json:"failure,omitempty"`
}

// WriteAnswer writes a login, or why there is none. Out is a pipe or socket
// between two processes of ours, never a file.
func WriteAnswer(out io.Writer, login Login, failure error) error {
	var a answer
	switch {
	case !login.IsZero():
		r := login.Reveal()
		a.Login = &r
	case failure != nil:
		a.Failure = fault.NewMessage(failure)
	}
	if err := json.NewEncoder(out).Encode(a); err != nil {
		return fmt.Errorf("write the answer: %w", err)
	}
	return nil
}

// ReadAnswer reads what WriteAnswer wrote. The writer need not be trusted:
// the answer's length is bounded, and its words are cleaned.
func ReadAnswer(in io.Reader) (Login, error) {
	data, err := io.ReadAll(io.LimitReader(in, maxAnswer+1))
	if err != nil {
		return Login{}, fmt.Errorf("read the answer: %w", err)
	}
	var a answer
	switch {
	case len(data) == 0:
		return Login{}, errors.New("it ended without an answer")
	case len(data) > maxAnswer:
		return Login{}, fmt.Errorf("its answer is longer than %d bytes", maxAnswer)
	case json.Unmarshal(data, &a) != nil:
		return Login{}, errors.New("its answer is not JSON")
	case a.Failure != nil:
		return Login{}, a.Failure.Err()
	case a.Login == nil:
		return Login{}, nil
	}
	a.Login.Name, a.Login.Source = fault.Clean(a.Login.Name), fault.Clean(a.Login.Source)
	return a.Login.Login(), nil
}
