package imagecache

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/imagecache/credentials"
)

// Logins finds a user's logins; credentials.Keychain does.
type Logins interface {
	// Login returns the login for t, the zero Login where there is none.
	Login(ctx context.Context, t credentials.Target) (credentials.Login, error)
}

// Keychain makes logins fit for Network.Credentials. Looking them up may read
// the user's files and start helper programs, so it happens only when a
// registry lets nobody in without.
func Keychain(logins Logins) authn.Keychain { return keychain{logins} }

type keychain struct{ logins Logins }

// wanted is a repository as a keychain gets it: with the user whom the
// reference names.
type wanted struct {
	name.Repository
	user string
}

// User returns the login's name, or "" for any.
func (w wanted) User() string { return w.user }

// Resolve implements authn.Keychain.
func (k keychain) Resolve(r authn.Resource) (authn.Authenticator, error) {
	return k.ResolveContext(context.Background(), r)
}

// ResolveContext implements authn.ContextKeychain.
func (k keychain) ResolveContext(ctx context.Context, r authn.Resource) (authn.Authenticator, error) {
	t := credentials.Target{Registry: credentials.Host(r.RegistryStr())}
	t.Repository = strings.TrimPrefix(strings.TrimPrefix(r.String(), r.RegistryStr()), "/")
	if w, ok := r.(interface{ User() string }); ok {
		t.User = w.User()
	}
	login, err := k.logins.Login(ctx, t)
	if err != nil {
		return nil, err
	}
	if login.IsZero() {
		return authn.Anonymous, nil
	}
	return authenticator{login}, nil
}

// An authenticator is a login as go-containerregistry takes it.
type authenticator struct{ credentials.Login }

// Authorization implements authn.Authenticator.
func (a authenticator) Authorization() (*authn.AuthConfig, error) {
	return &authn.AuthConfig{
		Username: a.Name(), Password: a.Password().Reveal(),
		IdentityToken: a.IdentityToken().Reveal(), RegistryToken: a.RegistryToken().Reveal(),
	}, nil
}

// loginWords says in words whose login auth is. Those of other keychains are not
// asked: they would print their passwords.
func loginWords(auth authn.Authenticator) string {
	if a, ok := auth.(authenticator); ok {
		return a.Login.String()
	}
	return ""
}

// explain adds to a refusal which login was refused.
func (e *endpoint) explain(step int, answer *statusError) *statusError {
	if step == stepCredentials {
		e.mu.Lock()
		answer.login = e.login
		e.mu.Unlock()
	}
	return answer
}

// refused joins what a host said with why there is no way further in.
func refused(answer, why error) error {
	var status *statusError
	switch {
	case why == nil:
		return answer
	case errors.As(why, &status) && status.login != "":
		return why // a login was tried: that counts more than the nameless answer
	case worthRetry(why, 0):
		return why // who gives tokens has trouble of their own
	}
	return fmt.Errorf("%w; %w", answer, why)
}

// loginError says that login was refused, or could not be tried. A token
// service's own words are left out: they may repeat what it was sent.
func loginError(login string, err error) error {
	var status *statusError
	switch {
	case errors.As(err, &status):
		status.login, status.detail = login, ""
		return status
	case strings.Contains(err.Error(), "no token in bearer response"): // and then all of that
		return fmt.Errorf("log in as %s: the token service's answer has no token", login)
	}
	return fmt.Errorf("log in as %s: %w", login, err)
}

// CheckLogin asks the registry at host, the way a pull would, whether it takes
// login. checked is false where it lets in everybody, so that its answer says
// nothing. A refusal is the user's fault.
func CheckLogin(ctx context.Context, host string, login credentials.Login, net Network) (checked bool, err error) {
	checked, err = checkLogin(ctx, host, login, net)
	if err == nil {
		return checked, nil
	}
	blame, remedy := diagnose(Reference{registry: host}, err)
	var status *statusError
	if errors.As(err, &status) && (status.status == http.StatusUnauthorized || status.status == http.StatusForbidden) {
		blame, remedy = fault.User, "check user name and password; some registries want an access token in its place"
	}
	return false, &fault.Error{Op: "log in to", Arg: host, Blame: blame, Remedy: remedy, Err: err}
}

func checkLogin(ctx context.Context, host string, login credentials.Login, net Network) (bool, error) {
	net.Credentials = nil
	e, err := newEndpoint(host, "berth/login", net.Hosts[host], net)
	if err != nil {
		return false, err
	}
	status, err := e.greet(ctx)
	switch {
	case err != nil || status.status == http.StatusOK:
		return false, err
	case status.status != http.StatusUnauthorized:
		return false, status
	}
	t, err := transport.NewWithContext(ctx, e.repo.Registry, authenticator{login}, e.base, nil)
	if err != nil {
		return false, loginError(login.String(), e.requestError(err))
	}
	e.client = e.base.client(t)
	if status, err = e.greet(ctx); err == nil && status.status != http.StatusOK {
		status.login = login.String()
		err = status
	}
	return true, err
}

// greet asks for the address that every registry has, and returns its answer.
func (e *endpoint) greet(ctx context.Context) (*statusError, error) {
	host := e.repo.RegistryStr()
	var resp *http.Response
	var err error
	for _, scheme := range e.schemes {
		req, reqErr := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://"+host+"/v2/", nil)
		if reqErr != nil {
			return nil, reqErr
		}
		if resp, err = e.client.Do(req); err == nil || isCertificateError(err) {
			break
		}
	}
	if err != nil {
		return nil, e.requestError(err)
	}
	return e.answerError(resp), nil
}
