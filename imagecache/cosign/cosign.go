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
	"strings"
)

// What cosign calls its things in registries.
const (
	MediaType  = "application/vnd.dev.cosign.simplesigning.v1+json"
	Annotation = "dev.cosignproject.cosign/signature"
	// LogAnnotation is the log's word beside an older signature.
	LogAnnotation = "dev.sigstore.cosign/bundle"
	// PredicateAnnotation says what a bundle is about; of a signature that is
	// Predicate.
	PredicateAnnotation = "dev.sigstore.bundle.predicateType"
	Predicate           = "https://sigstore.dev/cosign/sign/v1"
)

// IsBundle says whether a media type is that of Sigstore's bundles.
func IsBundle(mediaType string) bool {
	return strings.HasPrefix(mediaType, "application/vnd.dev.sigstore.bundle")
}

// Bounds, in bytes and in number, on what registries and files may hold.
const (
	MaxPayload    = 64 << 10
	MaxSignatures = 64
	MaxBundle     = 256 << 10
	maxFile       = 4 << 20
	maxKey        = 64 << 10

	MaxTrustedRoot = 1 << 20
)

// A Signature is a payload in the form of "simple signing", which names a
// digest and a repository, and the signature over its bytes. Nobody has
// verified it. Log is what a transparency log says of it, as cosign writes that
// beside it; nil for nothing.
type Signature struct {
	Payload   []byte `json:"payload"`
	Signature []byte `json:"signature"`
	Log       []byte `json:"log,omitempty"`
}

// Claims are what claims to be a signature of one manifest or index.
type Claims struct {
	Signatures []Signature `json:"signatures,omitempty"`
	Bundles    [][]byte    `json:"bundles,omitempty"` // Sigstore's, in JSON
}

// Add adds more claims about the same.
func (c Claims) Add(more Claims) Claims {
	return Claims{append(c.Signatures, more.Signatures...), append(c.Bundles, more.Bundles...)}
}

// None says whether there is no claim.
func (c Claims) None() bool { return len(c.Signatures) == 0 && len(c.Bundles) == 0 }

// A Request is what berth-verify reads.
type Request struct {
	Keys []string `json:"keys"` // PEM
	// Digest is what the claims are said to be about.
	Digest string `json:"digest"`
	Claims Claims `json:"claims"`
	// TrustedRoot names the transparency logs of which one must have the
	// signature, as Sigstore's trusted_root.json does; "" for none.
	TrustedRoot string `json:"trusted_root,omitempty"`
}

// An Answer is what berth-verify prints: what the keys have signed.
type Answer struct {
	Verified []Verified `json:"verified"`
}

// Verified is what the owner of a key says.
type Verified struct {
	Key    string `json:"key"`    // Fingerprint
	Digest string `json:"digest"` // that was signed: of a manifest or an index
	Name   string `json:"name"`   // the repository for which, as the payload has it; "" for any
	// Log is the LogFingerprint of the request's TrustedRoot, one of whose logs
	// has the signature; "" where none was wanted.
	Log string `json:"log,omitempty"`
}

// ReadTrustedRoot returns the text of a trusted_root.json.
func ReadTrustedRoot(path string) (string, error) {
	text, err := readSmall(path, MaxTrustedRoot)
	if err == nil && !json.Valid(text) {
		err = fmt.Errorf("%s is no JSON, as trusted_root.json is", path)
	}
	return string(text), err
}

// LogFingerprint is the SHA-256 of a trusted root, as hex digits; "" of "".
func LogFingerprint(trustedRoot string) string {
	if trustedRoot == "" {
		return ""
	}
	sum := sha256.Sum256([]byte(trustedRoot))
	return hex.EncodeToString(sum[:])
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

// ReadFile reads signatures as `cosign download signature IMAGE` prints them,
// and bundles as `cosign sign --bundle FILE` writes them, one after the other;
// none where there is no file.
func ReadFile(path string) (all Claims, err error) {
	text, err := readSmall(path, maxFile)
	if errors.Is(err, fs.ErrNotExist) {
		return Claims{}, nil
	}
	if err != nil {
		return Claims{}, err
	}
	for d := json.NewDecoder(bytes.NewReader(text)); ; {
		var value json.RawMessage
		err := d.Decode(&value)
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err == nil {
			err = all.read(value)
		}
		if err != nil {
			return Claims{}, fmt.Errorf("%s is not what cosign download signature prints: %w", path, err)
		}
		if len(all.Signatures)+len(all.Bundles) > MaxSignatures {
			return Claims{}, fmt.Errorf("%s has more than %d signatures", path, MaxSignatures)
		}
	}
}

// read adds one JSON value of a file.
func (c *Claims) read(value json.RawMessage) error {
	var line struct {
		MediaType       string `json:"mediaType"`
		Base64Signature []byte
		Payload         []byte
		Bundle          json.RawMessage // what the log says
	}
	if err := json.Unmarshal(value, &line); err != nil {
		return err
	}
	if IsBundle(line.MediaType) {
		c.Bundles = append(c.Bundles, value)
	} else {
		c.Signatures = append(c.Signatures, Signature{line.Payload, line.Base64Signature, line.Bundle})
	}
	return nil
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
