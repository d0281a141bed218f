// Command berth-verify says which of some signatures were made by the site's
// keys. Only `berth node fetch` starts it, as the account: a cosign.Request on
// standard input, a cosign.Answer on standard output. It opens no file and no
// connection. It is a program of its own because sigstore's libraries cost
// time at each start of whatever links them.
package main

import (
	"bytes"
	"crypto"
	"encoding/json"
	"fmt"
	"io"
	"os"

	"github.com/sigstore/sigstore-go/pkg/verify"
	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/sigstore/sigstore/pkg/signature/payload"

	"github.com/berth-hpc/berth/imagecache/cosign"
)

// maxRequest bounds what is read, in bytes.
const maxRequest = 64 << 20

func main() {
	if err := run(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "berth-verify:", err)
		os.Exit(1)
	}
}

func run(in io.Reader, out io.Writer) error {
	var req cosign.Request
	if err := json.NewDecoder(io.LimitReader(in, maxRequest)).Decode(&req); err != nil {
		return fmt.Errorf("read the request: %w", err)
	}
	answer := cosign.Answer{Verified: []cosign.Verified{}}
	for _, text := range req.Keys {
		k, err := readKey(text, req.TrustedRoot)
		if err != nil {
			return err
		}
		answer.Verified = append(answer.Verified, k.verifyAll(req)...)
	}
	return json.NewEncoder(out).Encode(answer)
}

// A key is one of the site's.
type key struct {
	fingerprint string
	older       signature.Verifier // of signatures without a bundle
	verifier    *verify.Verifier
}

func readKey(text, trustedRoot string) (k key, err error) {
	if k.fingerprint, err = cosign.Fingerprint(text); err != nil {
		return k, err
	}
	public, err := cryptoutils.UnmarshalPEMToPublicKey([]byte(text))
	if err != nil {
		return k, fmt.Errorf("read key %s: %w", k.fingerprint, err)
	}
	if k.older, err = signature.LoadVerifier(public, crypto.SHA256); err != nil {
		return k, fmt.Errorf("use key %s: %w", k.fingerprint, err)
	}
	bundled, err := signature.LoadDefaultVerifier(public)
	if err != nil {
		return k, fmt.Errorf("use key %s: %w", k.fingerprint, err)
	}
	k.verifier, err = newVerifier(bundled, trustedRoot)
	return k, err
}

// verifyAll returns what the key's owner has signed. Signatures by others, for
// other purposes, and those that no log has where one must, are left out.
func (k key) verifyAll(req cosign.Request) (all []cosign.Verified) {
	log := cosign.LogFingerprint(req.TrustedRoot)
	for _, s := range req.Claims.Signatures {
		if k.older.VerifySignature(bytes.NewReader(s.Signature), bytes.NewReader(s.Payload)) != nil {
			continue
		}
		var p payload.Cosign
		if p.UnmarshalJSON(s.Payload) != nil || log != "" && !logged(k.verifier, s) {
			continue
		}
		all = append(all, cosign.Verified{Key: k.fingerprint, Digest: p.Image.DigestStr(), Name: p.ClaimedIdentity, Log: log})
	}
	for _, text := range req.Claims.Bundles {
		if name, ok := verifyBundle(k.verifier, text, req.Digest); ok {
			all = append(all, cosign.Verified{Key: k.fingerprint, Digest: req.Digest, Name: name, Log: log})
		}
	}
	return all
}
