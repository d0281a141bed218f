package credentials

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/sirupsen/logrus"
)

const secretText = "c0rrect-horse"

// holder is a struct of another package's that has a login somewhere inside,
// also where fmt can't call methods.
type holder struct {
	Public  Login
	private Login
	secret  Secret
	list    []Login
	byName  map[string]Secret
	pointer *Login
	any     any
}

func everything() map[string]any {
	s := NewSecret(secretText)
	l := Login{name: "alice", password: s, identity: s, registry: s, source: "a file"}
	h := holder{l, l, s, []Login{l}, map[string]Secret{"k": s}, &l, l}
	return map[string]any{
		"secret": s, "pointer to secret": &s, "login": l, "pointer to login": &l, "logins": []Login{l},
		"map": map[string]Login{"x": l}, "holder": h, "pointer to holder": &h, "any": any(l),
		"revealed": l.Reveal(), "keychain": Keychain{Variables: []Variable{{"V", s}}},
		"source": source(Variable{"V", s}), "entry": authEntry{Password: s},
		"auths":  auths{Auths: map[string]authEntry{"h": {Auth: s}}},
		"answer": helperAnswer{Secret: s}, "netrc": netrcEntry{password: s},
		"error": fmt.Errorf("with %v", l), "joined": errors.Join(fmt.Errorf("%+v", h)),
	}
}

// Nothing that a program may do by accident with a login shows its secret.
func TestSecretsDoNotPrint(t *testing.T) {
	for name, v := range everything() {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t", "%p"} {
			if name == "revealed" && verb == "%p" {
				continue // asks nobody's methods; the type is for what is to be read in clear
			}
			check(t, name+" "+verb, fmt.Sprintf(verb, v))
		}
		check(t, name+" Sprint", fmt.Sprint(v))
		check(t, name+" Sprintln", fmt.Sprintln(v, []any{v}))
		var b strings.Builder
		slog.New(slog.NewTextHandler(&b, nil)).Info("x", "v", v)
		log := logrus.New()
		log.SetOutput(&b)
		log.WithField("v", v).Error(v)
		check(t, name+" in a log", b.String())
	}
}

func TestSecretsDoNotEncode(t *testing.T) {
	for name, v := range everything() {
		if name == "revealed" {
			continue // made to be encoded
		}
		if data, err := json.Marshal(v); err == nil { // some hold a func
			check(t, name, string(data))
		}
	}
}

func check(t *testing.T, what, text string) {
	t.Helper()
	for _, leak := range []string{secretText, fmt.Sprintf("%x", secretText), fmt.Sprintf("%X", secretText)} {
		if strings.Contains(text, leak) {
			t.Errorf("%s: %s", what, text)
		}
	}
}

// The one way in which a login leaves a process gives it back whole.
func TestReveal(t *testing.T) {
	l := Login{name: "a", password: NewSecret("p"), identity: NewSecret("i"), registry: NewSecret("r"), source: "s"}
	data, err := json.Marshal(l.Reveal())
	if err != nil {
		t.Fatal(err)
	}
	var r Revealed
	if err := json.Unmarshal(data, &r); err != nil {
		t.Fatal(err)
	}
	if r.Login().Reveal() != l.Reveal() || r.Login().Password().Reveal() != "p" {
		t.Errorf("got %s", data)
	}
	if !(Login{name: "a"}).IsZero() || !NewSecret("").IsZero() || l.IsZero() {
		t.Error("a name alone is no login")
	}
	if (Secret{}).Reveal() != "" {
		t.Error("the zero secret has a text")
	}
}
