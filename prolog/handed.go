package prolog

import (
	"fmt"
	"io"

	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/imagecache"
	"github.com/berth-hpc/berth/imagecache/credentials"
	"github.com/berth-hpc/berth/prolog/jobstate"
)

// handed is what the job's session said when it was asked for a login.
type handed struct {
	login credentials.Login
	err   error // why it has none
}

// takeLogin reads it from the pipe of whoever started this worker.
func (w *worker) takeLogin(in io.Reader) error {
	if err := credentials.Guard(); err != nil {
		return err
	}
	login, err := credentials.ReadAnswer(in)
	if err != nil {
		err = fmt.Errorf("your job's session: %w", err)
	}
	w.handed = &handed{login, err}
	return nil
}

// loginWanted says whether the job's session should be asked for a login,
// because a registry's refusal is why the preparation fails. It is asked once.
func (w *worker) loginWanted(failure error) *jobstate.LoginWanted {
	ref, err := imagecache.ParseReference(w.req.Image)
	if err != nil || !isRefusal(failure) || w.handed != nil || w.req.UID == 0 {
		return nil
	}
	refusal := failure
	if w.refusal != nil {
		refusal = w.refusal // without what was added to it
	}
	wanted := &jobstate.LoginWanted{Registry: ref.Host(), Repository: ref.Repository()}
	if w.login.IsZero() {
		wanted.Answer = *fault.NewMessage(withoutLogin(w.req.Image, refusal, nil))
	} else {
		wanted.Tried, wanted.Answer = w.login.String(), *fault.NewMessage(refusal)
	}
	return wanted
}
