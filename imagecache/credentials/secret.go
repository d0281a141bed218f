package credentials

import (
	"fmt"
	"io"
)

// hidden is what a secret prints as.
const hidden = "[hidden]"

// A Secret is a password or a token. It prints, formats and encodes as
// "[hidden]"; Reveal is the only way to its text. The text is in a closure,
// because package fmt walks unexported fields without asking their methods.
// The zero Secret is empty.
type Secret struct{ reveal func() string }

// NewSecret hides text.
func NewSecret(text string) Secret {
	if text == "" {
		return Secret{}
	}
	return Secret{func() string { return text }}
}

// Reveal returns the text.
func (s Secret) Reveal() string {
	if s.reveal == nil {
		return ""
	}
	return s.reveal()
}

// IsZero reports whether there is no text.
func (s Secret) IsZero() bool { return s.reveal == nil }

// String returns a word in place of the text.
func (s Secret) String() string { return hidden }

// GoString returns a word in place of the text.
func (s Secret) GoString() string { return hidden }

// Format writes a word in place of the text, whatever the verb.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, hidden) }

// UnmarshalText hides text that comes out of a file.
func (s *Secret) UnmarshalText(text []byte) error {
	*s = NewSecret(string(text))
	return nil
}

// MarshalText encodes a word in place of the text.
func (s Secret) MarshalText() ([]byte, error) { return []byte(hidden), nil }

// MarshalJSON encodes a word in place of the text.
func (s Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + hidden + `"`), nil }
