package credentials

import (
	"encoding/json"
	"fmt"
	"io"
)

// A Login lets a user into a registry: by name and password, by an identity
// token that is exchanged for others, or by a token that is shown as it is.
// The zero Login is none. It prints its name and source, never a secret, and
// encodes as nothing more; Reveal is the way into another process.
type Login struct {
	name     string
	password Secret
	identity Secret
	registry Secret
	source   string
}

// NewLogin returns a login by name and password. Source says where it came
// from, as a user knows that place: a file, a variable.
func NewLogin(name string, password Secret, source string) Login {
	return Login{name: name, password: password, source: source}
}

// Name returns the user's name at the registry; "" where a token is all.
func (l Login) Name() string { return l.name }

// Password returns the password that goes with the name.
func (l Login) Password() Secret { return l.password }

// IdentityToken returns what the registry's token service exchanges.
func (l Login) IdentityToken() Secret { return l.identity }

// RegistryToken returns what is shown to the registry as it is.
func (l Login) RegistryToken() Secret { return l.registry }

// Source returns where the login came from.
func (l Login) Source() string { return l.source }

// IsZero reports whether l is no login. A name alone is none.
func (l Login) IsZero() bool {
	return l.password.IsZero() && l.identity.IsZero() && l.registry.IsZero()
}

// String says whose login it is and where it came from.
func (l Login) String() string {
	switch {
	case l.IsZero():
		return "no login"
	case l.name == "":
		return "the token from " + l.source
	}
	return fmt.Sprintf("%s, from %s", l.name, l.source)
}

// GoString is String.
func (l Login) GoString() string { return l.String() }

// Format writes String, whatever the verb.
func (l Login) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, l.String()) }

// MarshalJSON encodes String.
func (l Login) MarshalJSON() ([]byte, error) { return json.Marshal(l.String()) }

// A Revealed is a login with its secrets in clear, on its way to another
// process of ours over a descriptor. Make one where it is written, and keep
// none.
type Revealed struct {
	Name          string `json:"name,omitempty"`
	Password      string `json:"password,omitempty"`
	IdentityToken string `json:"identity_token,omitempty"`
	RegistryToken string `json:"registry_token,omitempty"`
	Source        string `json:"source"`
}

// Reveal returns l in clear.
func (l Login) Reveal() Revealed {
	return Revealed{
		Name: l.name, Password: l.password.Reveal(),
		IdentityToken: l.identity.Reveal(), RegistryToken: l.registry.Reveal(), Source: l.source,
	}
}

// Login hides r's secrets again.
func (r Revealed) Login() Login {
	return Login{
		name: r.Name, password: NewSecret(r.Password),
		identity: NewSecret(r.IdentityToken), registry: NewSecret(r.RegistryToken), source: r.Source,
	}
}

// String keeps a Revealed from printing itself by mistake.
func (r Revealed) String() string { return r.Login().String() }

// GoString is String.
func (r Revealed) GoString() string { return r.String() }

// Format writes String, whatever the verb.
func (r Revealed) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, r.String()) }
