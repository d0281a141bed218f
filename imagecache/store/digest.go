package store

import (
	"errors"
	"fmt"
	"strings"
)

// A Digest names an image by the SHA-256 of the manifest of one platform.
// The zero Digest names nothing. Every other is 64 lower-case hex
// characters, so String and Hex are always safe single path elements.
// ParseDigest is the only way to make one.
type Digest struct{ hex string }

const (
	digestPrefix = "sha256:"
	digestHexLen = 64
)

// ErrDigest is the cause of every failure of ParseDigest.
var ErrDigest = errors.New(`not a digest: want "sha256:" and 64 lower-case hex digits`)

// ParseDigest reads "sha256:" followed by 64 lower-case hex digits.
func ParseDigest(s string) (Digest, error) {
	hex, ok := strings.CutPrefix(s, digestPrefix)
	if !ok || len(hex) != digestHexLen || strings.Trim(hex, "0123456789abcdef") != "" {
		return Digest{}, fmt.Errorf("%q: %w", s, ErrDigest)
	}
	return Digest{hex: hex}, nil
}

// String returns "sha256:<hex>", or "" for the zero Digest.
func (d Digest) String() string {
	if d.IsZero() {
		return ""
	}
	return digestPrefix + d.hex
}

// Hex returns the 64 hex digits alone, or "" for the zero Digest.
func (d Digest) Hex() string { return d.hex }

// IsZero reports whether d names nothing.
func (d Digest) IsZero() bool { return d.hex == "" }

// MarshalText writes String's form, for JSON.
func (d Digest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads what MarshalText wrote; "" is the zero Digest.
func (d *Digest) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		*d = Digest{}
		return nil
	}
	parsed, err := ParseDigest(string(text))
	if err != nil {
		return err
	}
	*d = parsed
	return nil
}
