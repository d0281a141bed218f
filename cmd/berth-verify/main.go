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
	for _, key := range req.Keys {
		verified, err := verifyAll(key, req.Signatures)
		if err != nil {
			return err
		}
		answer.Verified = append(answer.Verified, verified...)
	}
	return json.NewEncoder(out).Encode(answer)
}

// verifyAll returns what the owner of one key has signed. Signatures by others,
// and for other purposes, are left out.
func verifyAll(key string, signatures []cosign.Signature) ([]cosign.Verified, error) {
	fingerprint, err := cosign.Fingerprint(key)
	if err != nil {
		return nil, err
	}
	public, err := cryptoutils.UnmarshalPEMToPublicKey([]byte(key))
	if err != nil {
		return nil, fmt.Errorf("read key %s: %w", fingerprint, err)
	}
	verifier, err := signature.LoadVerifier(public, crypto.SHA256)
	if err != nil {
		return nil, fmt.Errorf("use key %s: %w", fingerprint, err)
	}
	var all []cosign.Verified
	for _, s := range signatures {
		if verifier.VerifySignature(bytes.NewReader(s.Signature), bytes.NewReader(s.Payload)) != nil {
			continue
		}
		var p payload.Cosign
		if p.UnmarshalJSON(s.Payload) != nil {
			continue
		}
		all = append(all, cosign.Verified{Key: fingerprint, Digest: p.Image.DigestStr(), Name: p.ClaimedIdentity})
	}
	return all, nil
}
