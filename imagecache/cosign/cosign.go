// Package cosign has the words of signatures: what cosign writes into
// registries and files, and what Berth's programs say to each other about it.
//
// The fetcher, as the account, gathers what claims to be a signature
// (imagecache.Signatures, ReadFile), and asks berth-verify, a program of its
// own because it links sigstore's libraries, which of it was made by one of
// the site's keys (Request, Answer). Root compares keys by their Fingerprint.
// Nothing here verifies anything.
package cosign

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// What cosign calls its things in registries.
const (
	MediaType  = "application/vnd.dev.cosign.simplesigning.v1+json"
	Annotation = "dev.cosignproject.cosign/signature"
)

// Bounds, in bytes and in number, on what registries and files may hold.
const (
	MaxPayload    = 64 << 10
	MaxSignatures = 64
	maxFile       = 4 << 20
	maxKey        = 64 << 10
)

// A Signature is a payload in the form of "simple signing", which names a
// digest and a repository, and the signature over its bytes. Nobody has
// verified it.
type Signature struct {
	Payload   []byte `json:"payload"`
	Signature []byte `json:"signature"`
}

// A Request is what berth-verify reads.
type Request struct {
	Keys       []string    `json:"keys"` // PEM
	Signatures []Signature `json:"signatures"`
}

// An Answer is what berth-verify prints: what the keys have signed.
type Answer struct {
	Verified []Verified `json:"verified"`
}

// Verified is what the owner of a key says.
type Verified struct {
	Key    string `json:"key"`    // Fingerprint
	Digest string `json:"digest"` // that was signed: of a manifest or an index
	Name   string `json:"name"`   // the repository for which, as the payload has it
}

// ReadKey returns the PEM text of a public key in a file.
func ReadKey(path string) (string, error) {
	text, err := readSmall(path, maxKey)
	if err != nil {
		return "", err
	}
	if _, err := Fingerprint(string(text)); err != nil {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	return string(text), nil
}

// Fingerprint is the SHA-256 of a public key in PEM, as hex digits.
func Fingerprint(text string) (string, error) {
	block, _ := pem.Decode([]byte(text))
	if block == nil || block.Type != "PUBLIC KEY" {
		return "", errors.New("it is no public key in PEM, as cosign generate-key-pair writes it into cosign.pub")
	}
	if _, err := x509.ParsePKIXPublicKey(block.Bytes); err != nil {
		return "", err
	}
	sum := sha256.Sum256(block.Bytes)
	return hex.EncodeToString(sum[:]), nil
}

// ReadFile reads signatures as `cosign download signature IMAGE` prints them;
// none where there is no file.
func ReadFile(path string) ([]Signature, error) {
	text, err := readSmall(path, maxFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var all []Signature
	for d := json.NewDecoder(bytes.NewReader(text)); ; {
		var line struct {
			Base64Signature []byte
			Payload         []byte
		}
		switch err := d.Decode(&line); {
		case errors.Is(err, io.EOF):
			return all, nil
		case err != nil:
			return nil, fmt.Errorf("%s is not what cosign download signature prints: %w", path, err)
		}
		if all = append(all, Signature{line.Payload, line.Base64Signature}); len(all) > MaxSignatures {
			return nil, fmt.Errorf("%s has more than %d signatures", path, MaxSignatures)
		}
	}
}

func readSmall(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(text)) > limit {
		err = fmt.Errorf("%s is larger than %d bytes", path, limit)
	}
	return text, err
}
