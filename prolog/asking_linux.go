package prolog

import (
	"context"
	"errors"
	"fmt"
	"os/user"
	"strconv"

	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/imagecache"
	"github.com/berth-hpc/berth/imagecache/credentials"
)

// A refusedError is a registry's answer that a login might change.
type refusedError struct{ error }

// Unwrap returns the answer.
func (e *refusedError) Unwrap() error { return e.error }

func isRefusal(err error) bool {
	var refused *refusedError
	return errors.As(err, &refused)
}

// asking calls ask, which starts a fetcher: without a login at first, and once
// more with the user's, if the registry refuses and the user has one.
func (w *worker) asking(ctx context.Context, ask func() error) error {
	err := w.noting(ask())
	if !isRefusal(err) || !w.login.IsZero() || ctx.Err() != nil {
		return err
	}
	if !w.looked {
		w.looked = true
		w.login, w.lookErr = w.findLogin(ctx)
	}
	if w.login.IsZero() {
		return withoutLogin(w.req.Image, err, w.lookErr)
	}
	w.log.WithField("login", w.login.String()).Info("asking again")
	return w.noting(ask())
}

// noting remembers a refusal.
func (w *worker) noting(err error) error {
	if isRefusal(err) {
		w.refusal = err
	}
	return err
}

// findLogin takes the login that the job's session gave; before that was asked,
// it looks in the files of the job's user. From here on this process may hold a
// secret.
func (w *worker) findLogin(ctx context.Context) (credentials.Login, error) {
	if w.handed != nil {
		return w.handed.login, w.handed.err
	}
	ref, err := imagecache.ParseReference(w.req.Image)
	if err != nil || w.req.UID == 0 || w.anonymous {
		return credentials.Login{}, err
	}
	if err := credentials.Guard(); err != nil {
		return credentials.Login{}, err
	}
	users := w.cfg.users
	if users == nil {
		users = systemUser
	}
	who, err := within(ctx, func() (looker, error) { return users(w.req.UID) })
	if err != nil {
		return credentials.Login{}, fmt.Errorf("look up user %d: %w", w.req.UID, err)
	}
	return w.cfg.lookUp(ctx, who, ref)
}

// within bounds a question to the system's user database, which may be behind
// a network, by lookLimit.
func within(ctx context.Context, ask func() (looker, error)) (looker, error) {
	ctx, cancel := context.WithTimeout(ctx, lookLimit)
	defer cancel()
	type answer struct {
		who looker
		err error
	}
	c := make(chan answer, 1)
	go func() {
		who, err := ask()
		c <- answer{who, err}
	}()
	select {
	case a := <-c:
		return a.who, a.err
	case <-ctx.Done():
		return looker{}, context.Cause(ctx)
	}
}

// systemUser is what the system's user database says of uid.
func systemUser(uid uint32) (looker, error) {
	u, err := user.LookupId(strconv.FormatUint(uint64(uid), 10))
	if err != nil {
		return looker{}, err
	}
	_, gid, err := parseIDs(u.Uid, u.Gid)
	if err != nil {
		return looker{}, err
	}
	names, err := u.GroupIds()
	if err != nil {
		return looker{}, err
	}
	who := looker{uid: uid, gid: gid, home: u.HomeDir}
	for _, name := range names {
		n, err := parseNumber(name)
		if err != nil {
			return looker{}, err
		}
		who.groups = append(who.groups, n)
	}
	return who, nil
}

// withoutLogin adds to a registry's refusal what the user can do about it, and
// why no login was found, where that is not known.
func withoutLogin(image string, refusal, why error) error {
	f := &fault.Error{Op: refusal.Error(), Blame: fault.Of(refusal), Remedy: fault.Remedy(refusal), Cause: fault.CauseOf(refusal)}
	if why != nil {
		f.Op += fmt.Sprintf(" (no login was found: %v)", why)
	}
	if ref, err := imagecache.ParseReference(image); err == nil {
		f.Remedy += "; private images in jobs want a login that the job finds: berth login " + ref.Host()
	}
	return &refusedError{f}
}
