package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	protorekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/verify"
	"github.com/sigstore/sigstore/pkg/signature"

	"github.com/berth-hpc/berth/imagecache/cosign"
)

// material is one key, and the logs that count, if any need.
type material struct {
	*root.TrustedPublicKeyMaterial
	logs map[string]*root.TransparencyLog
}

// RekorLogs implements root.TrustedMaterial.
func (m material) RekorLogs() map[string]*root.TransparencyLog { return m.logs }

// newVerifier verifies what the key's owner has signed, and that a log has it
// where trustedRoot is not "".
func newVerifier(key signature.Verifier, trustedRoot string) (*verify.Verifier, error) {
	m := material{TrustedPublicKeyMaterial: root.NewTrustedPublicKeyMaterial(func(string) (root.TimeConstrainedVerifier, error) {
		return root.NewExpiringKey(key, time.Time{}, time.Time{}), nil
	})}
	// A key has no time from which on it counts, as certificates have.
	options := []verify.VerifierOption{verify.WithNoObserverTimestamps()}
	if trustedRoot != "" {
		logs, err := root.NewTrustedRootFromJSON([]byte(trustedRoot))
		if err != nil {
			return nil, fmt.Errorf("read the trusted root: %w", err)
		}
		m.logs = logs.RekorLogs()
		options = append(options, verify.WithTransparencyLog(1))
	}
	return verify.NewVerifier(m, options...)
}

// verifyBundle returns for which repository a bundle signs the digest, "" for
// any; false for what does not sign it, as attestations about it.
func verifyBundle(v *verify.Verifier, text []byte, digest string) (name string, ok bool) {
	var b bundle.Bundle
	algorithm, hexadecimal, _ := strings.Cut(digest, ":")
	sum, err := hex.DecodeString(hexadecimal)
	if err != nil || b.UnmarshalJSON(text) != nil {
		return "", false
	}
	result, err := v.Verify(&b, verify.NewPolicy(verify.WithArtifactDigest(algorithm, sum), verify.WithKey()))
	if err != nil || result.Statement == nil || result.Statement.GetPredicateType() != cosign.Predicate {
		return "", false
	}
	for _, s := range result.Statement.GetSubject() {
		if s.GetDigest()[algorithm] == hexadecimal {
			return s.GetName(), true
		}
	}
	return "", false
}

// logged says whether a log has an older signature, by the word of the log that
// is beside it.
func logged(v *verify.Verifier, s cosign.Signature) bool {
	entry, err := entryOf(s.Log)
	if err != nil {
		return false
	}
	sum := sha256.Sum256(s.Payload)
	b, err := bundle.NewBundle(&protobundle.Bundle{
		MediaType: "application/vnd.dev.sigstore.bundle+json;version=0.1", // of the time when logs gave promises alone
		VerificationMaterial: &protobundle.VerificationMaterial{
			Content:     &protobundle.VerificationMaterial_PublicKey{PublicKey: &protocommon.PublicKeyIdentifier{}},
			TlogEntries: []*protorekor.TransparencyLogEntry{entry},
		},
		Content: &protobundle.Bundle_MessageSignature{MessageSignature: &protocommon.MessageSignature{
			MessageDigest: &protocommon.HashOutput{Algorithm: protocommon.HashAlgorithm_SHA2_256, Digest: sum[:]},
			Signature:     s.Signature,
		}},
	})
	if err != nil {
		return false
	}
	_, err = v.Verify(b, verify.NewPolicy(verify.WithArtifact(bytes.NewReader(s.Payload)), verify.WithKey()))
	return err == nil
}

// entryOf reads cosign's RekorBundle.
func entryOf(text []byte) (*protorekor.TransparencyLogEntry, error) {
	var is struct {
		SignedEntryTimestamp []byte
		Payload              struct {
			Body           []byte `json:"body"`
			IntegratedTime int64  `json:"integratedTime"`
			LogIndex       int64  `json:"logIndex"`
			LogID          string `json:"logID"`
		}
	}
	if err := json.Unmarshal(text, &is); err != nil {
		return nil, err
	}
	var kind struct{ Kind, APIVersion string }
	if err := json.Unmarshal(is.Payload.Body, &kind); err != nil {
		return nil, err
	}
	id, err := hex.DecodeString(is.Payload.LogID)
	return &protorekor.TransparencyLogEntry{
		LogIndex: is.Payload.LogIndex, LogId: &protocommon.LogId{KeyId: id}, IntegratedTime: is.Payload.IntegratedTime,
		KindVersion:       &protorekor.KindVersion{Kind: kind.Kind, Version: kind.APIVersion},
		InclusionPromise:  &protorekor.InclusionPromise{SignedEntryTimestamp: is.SignedEntryTimestamp},
		CanonicalizedBody: is.Payload.Body,
	}, err
}
