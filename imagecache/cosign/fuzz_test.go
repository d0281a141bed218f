package cosign

import (
	"os"
	"path/filepath"
	"testing"
)

// FuzzReadFile: a file of signatures holds a bounded number, or is refused with
// its name; a key has one fingerprint.
func FuzzReadFile(f *testing.F) {
	f.Add([]byte(`{"Base64Signature":"YQ==","Payload":"e30=","Bundle":{"x":1}}` + "\n" + `{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json"}`))
	f.Add([]byte("-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE\n-----END PUBLIC KEY-----\n"))
	f.Add([]byte("null null [] {}"))
	f.Fuzz(func(t *testing.T, text []byte) {
		path := filepath.Join(t.TempDir(), "s")
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		claims, err := ReadFile(path)
		if n := len(claims.Signatures) + len(claims.Bundles); n > MaxSignatures || err != nil && n > 0 {
			t.Errorf("%d signatures, %v", n, err)
		}
		if key, err := ReadKey(path); err == nil {
			if sum, err := Fingerprint(key); err != nil || len(sum) != 64 {
				t.Errorf("%q, %v", sum, err)
			}
		}
	})
}
