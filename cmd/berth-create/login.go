package main

import (
	"context"
	"errors"
	"strings"

	"github.com/berth-hpc/berth/imagecache/credentials"
	"github.com/berth-hpc/berth/launcher/step"
	"github.com/berth-hpc/berth/prolog/jobstate"
)

// withLogin asks the job's session, once, for the login that a preparation
// wanted, and has it made again with that.
func (n *node) withLogin(ctx context.Context, req jobstate.Request, user step.User, wanted *jobstate.LoginWantedError) (jobstate.Ready, error) {
	answer, err := user.Login(ctx)
	if ctx.Err() != nil {
		return jobstate.Ready{}, ctx.Err()
	}
	if errors.Is(err, step.ErrNoSession) {
		return jobstate.Ready{}, wanted
	}
	if err == nil {
		err = worthTrying(answer, wanted)
	}
	if err != nil {
		return jobstate.Ready{}, noLogin(wanted, err)
	}
	return n.again(ctx, req, user, answer)
}

// errNone and errSame are why an answer is not worth a try.
var (
	errNone = errors.New("it has none")
	errSame = errors.New("it has the same one")
)

// worthTrying refuses an answer without a login, or with the one that the
// registry has refused: trying that again could lock the user out.
func worthTrying(answer string, wanted *jobstate.LoginWantedError) error {
	login, err := credentials.ReadAnswer(strings.NewReader(answer))
	switch {
	case err != nil:
		return err
	case login.IsZero():
		return errNone
	case login.String() == wanted.Tried:
		return errSame
	}
	return nil
}

// noLogin is the preparation's failure, with the reason why the session knows
// no other way, if there is more to say than that.
func noLogin(wanted *jobstate.LoginWantedError, reason error) error {
	if errors.Is(reason, errNone) || errors.Is(reason, errSame) {
		return wanted.Plain()
	}
	return wanted.Without(reason)
}

// againTries is how often a login is handed over: a worker that another step
// started may be at it, without one.
const againTries = 3

func (n *node) again(ctx context.Context, req jobstate.Request, user step.User, answer string) (ready jobstate.Ready, err error) {
	for range againTries {
		var folder jobstate.Folder
		folder, err = jobstate.Again(ctx, []string{n.berth}, n.cfg.Node.RunDir, req, answer)
		if err != nil {
			return ready, err
		}
		ready, err = folder.Wait(ctx, user.Tell)
		if wanted := (*jobstate.LoginWantedError)(nil); !errors.As(err, &wanted) {
			break
		}
	}
	return ready, err
}
