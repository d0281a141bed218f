package store

import (
	"errors"
	"strings"
	"testing"
)

func TestParseDigest(t *testing.T) {
	for _, bad := range []string{
		"", "sha256:", strings.Repeat("a", 64), "sha256:" + strings.Repeat("a", 63), "sha256:" + strings.Repeat("a", 65),
		"sha256:" + strings.Repeat("A", 64), "sha256:" + strings.Repeat("g", 64), "sha512:" + strings.Repeat("a", 64),
		"sha256:../" + strings.Repeat("a", 61), " sha256:" + strings.Repeat("a", 64),
	} {
		if _, err := ParseDigest(bad); !errors.Is(err, ErrDigest) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	var d Digest
	if err := d.UnmarshalText([]byte("sha256:x")); err == nil {
		t.Error("JSON can make a digest that ParseDigest refuses")
	}
	if err := d.UnmarshalText([]byte(digest('e').String())); err != nil || d != digest('e') {
		t.Errorf("%v %v", d, err)
	}
}
