package credentials

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

func (v Variable) source() string { return "$" + v.Name }

func (v Variable) look(ctx context.Context, k *Keychain, t Target) (Login, error) {
	a, err := v.read()
	if err != nil {
		return Login{}, err
	}
	return a.look(ctx, k, t)
}

func (v Variable) list(*Keychain) ([]Entry, error) {
	a, err := v.read()
	if err != nil {
		return nil, err
	}
	return a.list(), nil
}

// read takes the text for an auth file, if it begins with a brace, and for
// lines HOST[/NAMESPACE]=USER:PASSWORD or HOST[/NAMESPACE]=TOKEN otherwise.
func (v Variable) read() (auths, error) {
	text := strings.TrimSpace(v.Text.Reveal())
	switch {
	case len(text) > maxFile:
		return auths{}, problem(v.source(), "shorten it", errors.New("it is too long"))
	case strings.HasPrefix(text, "{"):
		return parseAuths([]byte(text), v.source())
	}
	a := auths{source: v.source(), Auths: map[string]authEntry{}}
	number := 0
	for line := range strings.Lines(text) {
		number++
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		key, login, ok := strings.Cut(line, "=")
		if !ok || key == "" || login == "" {
			return auths{}, problem(v.source(), "write HOST=USER:PASSWORD, one per line", fmt.Errorf("line %d has no HOST=", number))
		}
		a.Auths[key] = lineEntry(login)
	}
	return a, nil
}

func lineEntry(login string) authEntry {
	name, password, ok := strings.Cut(login, ":")
	if !ok {
		return authEntry{RegistryToken: NewSecret(login)}
	}
	return authEntry{Username: name, Password: NewSecret(password)}
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
