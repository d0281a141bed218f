package prolog

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	protorekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/sign"
	"github.com/sigstore/sigstore-go/pkg/testing/ca"
	"github.com/sigstore/sigstore-go/pkg/tlog"

	"github.com/berth-hpc/berth/imagecache/cosign"
)

const bundleType = "application/vnd.dev.sigstore.bundle.v0.3+json"

// statement is what cosign sign puts into a bundle.
func statement(digest, predicate string) []byte {
	return fmt.Appendf(nil, `{"_type":"https://in-toto.io/Statement/v1","subject":[{"digest":{"sha256":"%s"}}],"predicateType":"%s","predicate":{}}`,
		strings.TrimPrefix(digest, "sha256:"), predicate)
}

// bundle signs a statement; log may have it, or is nil.
func (k signingKey) bundle(t *testing.T, text []byte, log *ca.VirtualSigstore) []byte {
	t.Helper()
	content := &sign.DSSEData{Data: text, PayloadType: "application/vnd.in-toto+json"}
	signature, err := k.signer.SignMessage(bytes.NewReader(content.PreAuthEncoding()))
	must(t, err)
	b := &protobundle.Bundle{MediaType: bundleType, VerificationMaterial: &protobundle.VerificationMaterial{
		Content: &protobundle.VerificationMaterial_PublicKey{PublicKey: &protocommon.PublicKeyIdentifier{Hint: "k"}},
	}}
	content.Bundle(b, signature, nil, protocommon.HashAlgorithm_SHA2_256)
	if log != nil {
		b.VerificationMaterial.TlogEntries = []*protorekor.TransparencyLogEntry{k.dsseEntry(t, text, signature, log)}
	}
	made, err := bundle.NewBundle(b)
	must(t, err)
	out, err := made.MarshalJSON()
	must(t, err)
	return out
}

func (k signingKey) pem(t *testing.T) []byte {
	t.Helper()
	text, err := os.ReadFile(k.file)
	must(t, err)
	return text
}

func hexSum(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// dsseEntry is a log's entry with a proof.
func (k signingKey) dsseEntry(t *testing.T, text, signature []byte, log *ca.VirtualSigstore) *protorekor.TransparencyLogEntry {
	t.Helper()
	body, err := json.Marshal(map[string]any{"apiVersion": "0.0.1", "kind": "dsse", "spec": map[string]any{
		"envelopeHash": map[string]string{"algorithm": "sha256", "value": hexSum(signature)},
		"payloadHash":  map[string]string{"algorithm": "sha256", "value": hexSum(text)},
		"signatures":   []any{map[string]any{"signature": base64.StdEncoding.EncodeToString(signature), "verifier": k.pem(t)}},
	}})
	must(t, err)
	proof, err := log.GetInclusionProof(body)
	must(t, err)
	id, err := log.RekorLogID()
	must(t, err)
	raw, err := hex.DecodeString(id)
	must(t, err)
	sum, err := hex.DecodeString(*proof.RootHash)
	must(t, err)
	return &protorekor.TransparencyLogEntry{
		LogIndex: *proof.LogIndex, LogId: &protocommon.LogId{KeyId: raw}, IntegratedTime: time.Now().Unix(),
		KindVersion:       &protorekor.KindVersion{Kind: "dsse", Version: "0.0.1"},
		CanonicalizedBody: body,
		InclusionProof: &protorekor.InclusionProof{ // of a log with one entry
			LogIndex: *proof.LogIndex, RootHash: sum, TreeSize: *proof.TreeSize, Checkpoint: &protorekor.Checkpoint{Envelope: *proof.Checkpoint},
		},
	}
}

// promise is a log's signed word that it has an entry, as of now.
func promise(t *testing.T, body []byte, index int64, id string, log *ca.VirtualSigstore) []byte {
	t.Helper()
	set, err := log.RekorSignPayload(tlog.RekorPayload{
		Body: base64.StdEncoding.EncodeToString(body), IntegratedTime: time.Now().Unix(), LogIndex: index, LogID: id,
	})
	must(t, err)
	return set
}

// logged adds what cosign writes beside an older signature that a log has.
func (k signingKey) logged(t *testing.T, s cosign.Signature, log *ca.VirtualSigstore) cosign.Signature {
	t.Helper()
	body, err := json.Marshal(map[string]any{"apiVersion": "0.0.1", "kind": "hashedrekord", "spec": map[string]any{
		"data":      map[string]any{"hash": map[string]string{"algorithm": "sha256", "value": hexSum(s.Payload)}},
		"signature": map[string]any{"content": base64.StdEncoding.EncodeToString(s.Signature), "publicKey": map[string]any{"content": k.pem(t)}},
	}})
	must(t, err)
	id, err := log.RekorLogID()
	must(t, err)
	s.Log, err = json.Marshal(map[string]any{
		"SignedEntryTimestamp": promise(t, body, 7, id, log),
		"Payload":              map[string]any{"body": body, "integratedTime": time.Now().Unix(), "logIndex": 7, "logID": id},
	})
	must(t, err)
	return s
}

// A referrer is a manifest as cosign pushes bundles; v1.Manifest has no
// artifactType.
type referrer struct {
	v1.Manifest
	ArtifactType string `json:"artifactType,omitempty"`
}

func (r referrer) RawManifest() ([]byte, error)        { return json.Marshal(r) }
func (r referrer) MediaType() (types.MediaType, error) { return types.OCIManifestSchema1, nil }

// refer puts bundles where cosign puts those of digest.
func refer(t *testing.T, repository, digest string, bundles ...[]byte) {
	t.Helper()
	repo, err := name.NewRepository(repository)
	must(t, err)
	subject, err := remote.Head(repo.Digest(digest))
	must(t, err)
	for _, text := range bundles {
		layer := static.NewLayer(text, bundleType)
		empty := static.NewLayer([]byte("{}"), "application/vnd.oci.empty.v1+json")
		r := referrer{ArtifactType: bundleType, Manifest: v1.Manifest{SchemaVersion: 2, MediaType: types.OCIManifestSchema1, Subject: subject}}
		for _, l := range []v1.Layer{layer, empty} {
			must(t, remote.WriteLayer(repo, l))
			d, err := l.Digest()
			must(t, err)
			size, err := l.Size()
			must(t, err)
			mediaType, err := l.MediaType()
			must(t, err)
			desc := v1.Descriptor{MediaType: mediaType, Digest: d, Size: size}
			if l == empty {
				r.Config = desc
			} else {
				r.Layers = append(r.Layers, desc)
			}
		}
		raw, err := r.RawManifest()
		must(t, err)
		must(t, remote.Put(repo.Digest("sha256:"+hexSum(raw)), r))
	}
}

// newLog is a transparency log, and the file that names it to a site.
func newLog(t *testing.T) (log *ca.VirtualSigstore, file string) {
	t.Helper()
	log, err := ca.NewVirtualSigstore()
	must(t, err)
	logs := log.RekorLogs()
	for id, l := range logs { // which has the id as text
		l.ID, err = hex.DecodeString(id)
		must(t, err)
	}
	trusted, err := root.NewTrustedRoot(root.TrustedRootMediaType01, nil, nil, nil, logs)
	must(t, err)
	text, err := trusted.MarshalJSON()
	must(t, err)
	file = filepath.Join(t.TempDir(), "trusted_root.json")
	must(t, os.WriteFile(file, text, 0o644))
	return log, file
}

// TestBundles: what newer releases of cosign write, in registries that know
// referrers and in those that do not, and what transparency logs say of
// signatures, old and new.
func TestBundles(t *testing.T) {
	if !privateMounts(t) {
		return
	}
	good, stranger := ecdsaKey(t), ecdsaKey(t)
	log, trusted := newLog(t)
	otherLog, _ := newLog(t)
	const other = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	signed := func(k signingKey, digest, predicate string, log *ca.VirtualSigstore) []byte {
		return k.bundle(t, statement(digest, predicate), log)
	}
	tests := []struct {
		name         string
		root         string
		sign         func(t *testing.T, repository, digest string)
		same, denied bool
	}{
		{name: "bundle", sign: func(t *testing.T, r, d string) { refer(t, r, d, signed(good, d, cosign.Predicate, nil)) }},
		{name: "one of two", sign: func(t *testing.T, r, d string) {
			refer(t, r, d, signed(good, d, cosign.Predicate, nil), signed(stranger, d, cosign.Predicate, nil))
		}},
		{name: "with a log that nobody wants", sign: func(t *testing.T, r, d string) { refer(t, r, d, signed(good, d, cosign.Predicate, log)) }},
		{name: "another key", denied: true, sign: func(t *testing.T, r, d string) { refer(t, r, d, signed(stranger, d, cosign.Predicate, nil)) }},
		{name: "another digest", denied: true, sign: func(t *testing.T, r, d string) { refer(t, r, d, signed(good, other, cosign.Predicate, nil)) }},
		{name: "an attestation", denied: true, sign: func(t *testing.T, r, d string) {
			refer(t, r, d, signed(good, d, "https://cosign.sigstore.dev/attestation/vuln/v1", nil))
		}},
		{name: "no bundle", denied: true, sign: func(t *testing.T, r, d string) { refer(t, r, d, []byte(`{"mediaType":"`+bundleType+`"}`), []byte("x")) }},
		{name: "for a repository, where that matters", same: true, denied: true, sign: func(t *testing.T, r, d string) {
			refer(t, r, d, signed(good, d, cosign.Predicate, nil)) // it names none
		}},
		{name: "logged", root: trusted, sign: func(t *testing.T, r, d string) { refer(t, r, d, signed(good, d, cosign.Predicate, log)) }},
		{name: "not logged", root: trusted, denied: true, sign: func(t *testing.T, r, d string) { refer(t, r, d, signed(good, d, cosign.Predicate, nil)) }},
		{name: "in another log", root: trusted, denied: true, sign: func(t *testing.T, r, d string) { refer(t, r, d, signed(good, d, cosign.Predicate, otherLog)) }},
		{name: "older, logged", root: trusted, sign: func(t *testing.T, r, d string) { attach(t, r, d, good.logged(t, good.sign(t, r, d), log)) }},
		{name: "older, not logged", root: trusted, denied: true, sign: func(t *testing.T, r, d string) { attach(t, r, d, good.sign(t, r, d)) }},
		{name: "older, in another log", root: trusted, denied: true, sign: func(t *testing.T, r, d string) { attach(t, r, d, good.logged(t, good.sign(t, r, d), otherLog)) }},
		{name: "older, the log has another", root: trusted, denied: true, sign: func(t *testing.T, r, d string) {
			s := good.sign(t, r, d)
			s.Log = good.logged(t, good.sign(t, r, other), log).Log
			attach(t, r, d, s)
		}},
	}
	for way, reg := range map[string]*testRegistry{
		"referrers": newRegistry(t, registry.WithReferrersSupport(true)), "tag": newRegistry(t),
	} {
		n := newNode(t)
		n.withVerifier()
		for i, tt := range tests {
			t.Run(way+", "+tt.name, func(t *testing.T) {
				repository := reg.host + "/" + strings.NewReplacer(" ", "-", ",", "").Replace(tt.name)
				image, digest := reg.push(t, strings.TrimPrefix(repository, reg.host+"/")+":v1", tt.name)
				tt.sign(t, repository, digest)
				p := signedBy(good)
				p.TrustedRoot, p.Rules[0].SignedName = tt.root, tt.same
				n.policy(p)
				r, images := request(uint32(i+1), image, digest), len(n.published())
				if tt.denied {
					n.denied(r, `no key that rule "signed" (/etc/berth/berth.toml) names has signed it`)
					if len(n.published()) != images {
						t.Error("it was pulled")
					}
					return
				}
				n.prepare(r)
				if _, err := n.outcome(r); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// A signature that was remembered without a log, or with another one, is
// looked for again when the site wants a log.
func TestRememberedLog(t *testing.T) {
	if !privateMounts(t) {
		return
	}
	n, reg := newNode(t), newRegistry(t)
	n.withVerifier()
	key := ecdsaKey(t)
	log, trusted := newLog(t)
	image, digest := reg.push(t, "a/b:v1", "inside")
	refer(t, reg.host+"/a/b", digest, key.bundle(t, statement(digest, cosign.Predicate), nil))
	p := signedBy(key)
	n.policy(p)
	n.prepare(request(1, image, digest))
	n.ready(request(1, image, digest))
	p.TrustedRoot = trusted
	n.policy(p)
	n.denied(request(2, image, digest), `no key that rule "signed"`)
	refer(t, reg.host+"/a/b", digest, key.bundle(t, statement(digest, cosign.Predicate), log))
	n.prepare(request(3, image, digest))
	n.ready(request(3, image, digest))
	before := reg.requests.Load()
	n.prepare(request(4, image, digest))
	n.ready(request(4, image, digest))
	if asked := reg.requests.Load() - before; asked != 0 {
		t.Errorf("%d requests although the log's word was remembered", asked)
	}
	_, p.TrustedRoot = newLog(t)
	n.policy(p)
	n.denied(request(5, image, digest), `no key that rule "signed"`)
	p.TrustedRoot = "/nonexistent/trusted_root.json"
	n.policy(p)
	n.prepare(request(6, image, digest))
	if _, err := n.outcome(request(6, image, digest)); err == nil || !strings.Contains(err.Error(), "read the transparency logs") {
		t.Errorf("%v", err)
	}
}

// Bundles of the site's own, as cosign sign --bundle writes them, beside older
// signatures.
func TestBundlesInAFolder(t *testing.T) {
	if !privateMounts(t) {
		return
	}
	n, reg := newNode(t), newRegistry(t)
	n.withVerifier()
	key, stranger := ecdsaKey(t), ecdsaKey(t)
	image, digest := reg.push(t, "a/b:v1", "inside")
	p := signedBy(key)
	p.Signatures = filepath.Join(n.dir, "signatures")
	must(t, os.Mkdir(p.Signatures, 0o755))
	n.policy(p)
	old := stranger.sign(t, reg.host+"/a/b", digest)
	line, err := json.Marshal(map[string]any{"Base64Signature": old.Signature, "Payload": old.Payload, "Bundle": nil})
	must(t, err)
	file := filepath.Join(p.Signatures, strings.Replace(digest, ":", "-", 1)+".json")
	must(t, os.WriteFile(file, line, 0o644))
	n.denied(request(1, image, digest), `no key that rule "signed"`)
	must(t, os.WriteFile(file, append(append(line, '\n'), key.bundle(t, statement(digest, cosign.Predicate), nil)...), 0o644))
	n.prepare(request(2, image, digest))
	n.ready(request(2, image, digest))
}

// What was seen with a login only must not stand where everybody reads: the
// record of an image that is public under another name.
func TestSignatureOfAPrivateRepository(t *testing.T) {
	if !privateMounts(t) {
		return
	}
	n, reg := newNode(t), newClosedRegistry(t, true)
	n.withVerifier()
	key := ecdsaKey(t)
	open, digest := reg.push(t, "public/tool:1", "inside")
	closed, _ := reg.push(t, "alice/tool:1", "inside")
	attach(t, reg.host+"/alice/tool", digest, key.sign(t, reg.host+"/alice/tool", digest))
	reg.users.Lock()
	n.people(reg.host)
	n.runs(jobOf(bob, 1, open, digest), "inside")
	n.policy(signedBy(key))
	n.runs(jobOf(alice, 2, closed, digest), "inside")
	if r := n.record(digest); len(r.Signatures) != 0 || strings.Contains(strings.Join(r.References, " "), "alice") {
		t.Errorf("everybody can read %+v of %q", r.Signatures, r.References)
	}
	n.denied(jobOf(bob, 3, open, digest), `no key that rule "signed"`) // where he sees none
}
