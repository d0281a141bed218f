package credentials

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// authFile is an auth.json of podman or a config.json of docker.
type authFile struct{ path string }

func (a authFile) look(ctx context.Context, k *Keychain, t Target) (Login, error) {
	auths, err := a.read(k)
	if err != nil {
		return Login{}, err
	}
	return auths.look(ctx, k, t)
}

func (a authFile) list(k *Keychain) ([]Entry, error) {
	auths, err := a.read(k)
	if err != nil {
		return nil, err
	}
	return auths.list(), nil
}

func (a authFile) read(k *Keychain) (auths, error) {
	data, open, err := readFile(a.path)
	if err != nil || data == nil {
		return auths{}, err
	}
	found, err := parseAuths(data, a.path)
	if open && len(found.list()) > 0 {
		k.warnOpen(a.path)
	}
	return found, err
}

// auths is what such a file says about logins.
type auths struct {
	Auths       map[string]authEntry `json:"auths"`
	CredHelpers map[string]string    `json:"credHelpers"`
	CredsStore  string               `json:"credsStore"`

	source string
}

// authEntry is one login as docker and podman write it. Auth is the base64 of
// NAME:PASSWORD, or of NAME: beside an identity token.
type authEntry struct {
	Auth          Secret `json:"auth"`
	Username      string `json:"username"`
	Password      Secret `json:"password"`
	IdentityToken Secret `json:"identitytoken"`
	RegistryToken Secret `json:"registrytoken"`
}

func parseAuths(data []byte, source string) (auths, error) {
	a := auths{source: source}
	if len(bytes.TrimSpace(data)) == 0 {
		return a, nil
	}
	if err := json.Unmarshal(data, &a); err != nil {
		return a, problem(source, "correct it, or remove it and log in again", jsonProblem(data, err))
	}
	return a, nil
}

// jsonProblem says where JSON is broken, and nothing of what stands there.
func jsonProblem(data []byte, err error) error {
	at, what := int64(len(data)), "is not valid JSON"
	var syntax *json.SyntaxError
	var wrong *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		at = syntax.Offset
	case errors.As(err, &wrong):
		at, what = wrong.Offset, "is not what belongs there"
	}
	line := 1 + bytes.Count(data[:min(at, int64(len(data)))], []byte("\n"))
	return fmt.Errorf("line %d %s", line, what)
}

// look asks the host's own helper, then the entries, then the helper for all.
func (a auths) look(ctx context.Context, k *Keychain, t Target) (Login, error) {
	if name := a.helper(t); name != "" {
		return k.ask(ctx, name, a.source, t)
	}
	login, err := a.entry(t)
	if !login.IsZero() || a.CredsStore == "" {
		return login, err
	}
	fromStore, storeErr := k.ask(ctx, a.CredsStore, a.source, t)
	return fromStore, errors.Join(err, storeErr)
}

// helper returns the name of the helper that is set for the target.
func (a auths) helper(t Target) string {
	for _, want := range t.keys() {
		for key, name := range a.CredHelpers {
			if Key(key) == want {
				return name
			}
		}
	}
	return ""
}

// entry returns the login of the most special key that means t.
func (a auths) entry(t Target) (Login, error) {
	var broken error
	for _, want := range t.keys() {
		for key, e := range a.Auths {
			if Key(key) != want {
				continue
			}
			login, err := e.login(a.source)
			switch {
			case err != nil:
				broken = problem(a.source, "log in again", fmt.Errorf("the entry %q: %w", key, err))
			case !login.IsZero() && t.wants(login.name):
				return login, nil
			}
		}
	}
	return Login{}, broken
}

func (e authEntry) login(source string) (Login, error) {
	l := Login{
		name: e.Username, password: e.Password, identity: e.IdentityToken, registry: e.RegistryToken, source: source,
	}
	if !e.Auth.IsZero() {
		name, password, err := decodeAuth(e.Auth.Reveal())
		if err != nil {
			return Login{}, err
		}
		l.name, l.password = name, password
	}
	return l, nil
}

// decodeAuth reads the base64 of NAME:PASSWORD, padded or not. Docker has
// written NULs at its end.
func decodeAuth(auth string) (name string, password Secret, err error) {
	raw, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(strings.TrimSpace(auth), "="))
	if err != nil {
		return "", Secret{}, errors.New("its auth is not base64")
	}
	name, text, ok := strings.Cut(string(raw), ":")
	if !ok {
		return "", Secret{}, errors.New("its auth is not NAME:PASSWORD")
	}
	return name, NewSecret(strings.TrimRight(text, "\x00")), nil
}

func encodeAuth(name, password string) string {
	return base64.StdEncoding.EncodeToString([]byte(name + ":" + password))
}

func (a auths) list() []Entry {
	var all []Entry
	for _, key := range sortedKeys(a.CredHelpers) {
		all = append(all, Entry{Registry: Key(key), Kind: "helper " + a.CredHelpers[key], Source: a.source})
	}
	for _, key := range sortedKeys(a.Auths) {
		login, err := a.Auths[key].login(a.source)
		if err == nil && !login.IsZero() {
			all = append(all, login.entry(Key(key)))
		}
	}
	if a.CredsStore != "" {
		all = append(all, Entry{Registry: "*", Kind: "helper " + a.CredsStore, Source: a.source})
	}
	return all
}

func (l Login) entry(key string) Entry {
	e := Entry{Registry: key, User: l.name, Kind: "password", Source: l.source}
	switch {
	case !l.registry.IsZero():
		e.Kind = "token"
	case !l.identity.IsZero():
		e.Kind = "identity token"
	}
	return e
}
