package prolog

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/sigstore/sigstore/pkg/signature/payload"

	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/imagecache/cosign"
	"github.com/berth-hpc/berth/imagecache/store"
	"github.com/berth-hpc/berth/policy"
)

// A signingKey signs as cosign sign --key does.
type signingKey struct {
	signer signature.Signer
	file   string // cosign.pub
}

func newKey(t *testing.T, private crypto.Signer) signingKey {
	t.Helper()
	signer, err := signature.LoadSigner(private, crypto.SHA256)
	must(t, err)
	text, err := cryptoutils.MarshalPublicKeyToPEM(private.Public())
	must(t, err)
	file := filepath.Join(t.TempDir(), "cosign.pub")
	must(t, os.WriteFile(file, text, 0o644))
	return signingKey{signer, file}
}

func ecdsaKey(t *testing.T) signingKey {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	return newKey(t, private)
}

// sign returns a signature of repository@digest.
func (k signingKey) sign(t *testing.T, repository, digest string) cosign.Signature {
	t.Helper()
	d, err := name.NewDigest(repository + "@" + digest)
	must(t, err)
	text, err := payload.Cosign{Image: d}.MarshalJSON()
	must(t, err)
	return k.signText(t, text)
}

func (k signingKey) signText(t *testing.T, text []byte) cosign.Signature {
	t.Helper()
	s, err := k.signer.SignMessage(bytes.NewReader(text))
	must(t, err)
	return cosign.Signature{Payload: text, Signature: s}
}

// attach puts signatures where cosign puts those of digest.
func attach(t *testing.T, repository, digest string, all ...cosign.Signature) {
	t.Helper()
	img := empty.Image
	for _, s := range all {
		var err error
		img, err = mutate.Append(img, mutate.Addendum{
			Layer:       static.NewLayer(s.Payload, cosign.MediaType),
			Annotations: map[string]string{cosign.Annotation: base64.StdEncoding.EncodeToString(s.Signature), cosign.LogAnnotation: string(s.Log)},
		})
		must(t, err)
	}
	tag, err := name.NewTag(repository + ":" + strings.Replace(digest, ":", "-", 1) + ".sig")
	must(t, err)
	must(t, remote.Write(tag, img))
}

// withVerifier has berth-verify on the node.
func (n *node) withVerifier() {
	n.t.Helper()
	path := filepath.Join(n.dir, "berth-verify")
	if out, err := exec.Command("go", "build", "-o", path, "../cmd/berth-verify").CombinedOutput(); err != nil {
		n.t.Fatalf("%v: %s", err, out)
	}
	must(n.t, os.Chmod(path, 0o755))
	n.configure(func(c *testConfig) { c.Verifier = path })
}

func signedBy(keys ...signingKey) policy.Policy {
	return policy.Policy{Rules: []policy.Rule{rule("signed", "*", func(r *policy.Rule) {
		for _, k := range keys {
			r.SignedBy = append(r.SignedBy, k.file)
		}
	})}}
}

func TestSignatures(t *testing.T) {
	if !privateMounts(t) {
		return
	}
	n, reg := newNode(t), newRegistry(t)
	n.withVerifier()
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	rsaPrivate, err := rsa.GenerateKey(rand.Reader, 2048)
	must(t, err)
	good, stranger := ecdsaKey(t), ecdsaKey(t)
	const other = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	same := func(p policy.Policy) policy.Policy {
		p.Rules[0].SignedName = true
		return p
	}
	tests := []struct {
		name   string
		p      policy.Policy
		sign   func(t *testing.T, repository, digest string)
		denied bool
	}{
		{"ECDSA", signedBy(good), func(t *testing.T, r, d string) { attach(t, r, d, good.sign(t, r, d)) }, false},
		{"one of two keys", signedBy(stranger, good), func(t *testing.T, r, d string) { attach(t, r, d, good.sign(t, r, d)) }, false},
		{"one of two signatures", signedBy(good), func(t *testing.T, r, d string) { attach(t, r, d, good.sign(t, r, d), stranger.sign(t, r, d)) }, false},
		{"same repository", same(signedBy(good)), func(t *testing.T, r, d string) { attach(t, r, d, good.sign(t, r, d)) }, false},
		{"other repository", signedBy(good), func(t *testing.T, r, d string) { attach(t, r, d, good.sign(t, r+"x", d)) }, false},
		{"other repository where that matters", same(signedBy(good)), func(t *testing.T, r, d string) { attach(t, r, d, good.sign(t, r+"x", d)) }, true},
		{"unsigned", signedBy(good), func(*testing.T, string, string) {}, true},
		{"another key", signedBy(good), func(t *testing.T, r, d string) { attach(t, r, d, stranger.sign(t, r, d)) }, true},
		{"another digest", signedBy(good), func(t *testing.T, r, d string) { attach(t, r, d, good.sign(t, r, other)) }, true},
		{"changed payload", signedBy(good), func(t *testing.T, r, d string) {
			s := good.sign(t, r, other)
			s.Payload = bytes.ReplaceAll(s.Payload, []byte(other), []byte(d))
			attach(t, r, d, s)
		}, true},
		{"another kind of document", signedBy(good), func(t *testing.T, r, d string) {
			text := `{"critical":{"identity":{"docker-reference":"` + r + `"},"image":{"docker-manifest-digest":"` + d + `"},"type":"something else"}}`
			attach(t, r, d, good.signText(t, []byte(text)))
		}, true},
	}
	for what, key := range map[string]signingKey{"Ed25519": newKey(t, ed), "RSA": newKey(t, rsaPrivate)} {
		tests = append(tests, tests[0])
		last := &tests[len(tests)-1]
		last.name, last.p = what, signedBy(key)
		last.sign = func(t *testing.T, r, d string) { attach(t, r, d, key.sign(t, r, d)) }
	}
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			repository := reg.host + "/" + strings.ToLower(strings.ReplaceAll(tt.name, " ", "-"))
			image, digest := reg.push(t, strings.TrimPrefix(repository, reg.host+"/")+":v1", tt.name)
			tt.sign(t, repository, digest)
			n.policy(tt.p)
			r, blobs, images := request(uint32(i+1), image, digest), reg.getBlobs.Load(), len(n.published())
			if !tt.denied {
				n.prepare(r)
				n.ready(r)
				return
			}
			n.denied(r, `no key that rule "signed" (/etc/berth/berth.toml) names has signed it`)
			if fetched := reg.getBlobs.Load() - blobs; fetched > 1 || len(n.published()) != images {
				t.Errorf("%d blobs; want the signature's alone", fetched)
			}
		})
	}
}

// cosign signs the index that a tag names.
func TestSignedIndex(t *testing.T) {
	if !privateMounts(t) {
		return
	}
	n, reg := newNode(t), newRegistry(t)
	n.withVerifier()
	key := ecdsaKey(t)
	n.policy(signedBy(key))
	image, digest := reg.push(t, "a/b:plain", "inside")
	ref, err := name.ParseReference(image)
	must(t, err)
	img, err := remote.Image(ref)
	must(t, err)
	index := mutate.AppendManifests(empty.Index, mutate.IndexAddendum{
		Add: img, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "amd64"}},
	})
	repository := reg.host + "/a/b"
	tag, err := name.NewTag(repository + ":v1")
	must(t, err)
	must(t, remote.WriteIndex(tag, index))
	d, err := index.Digest()
	must(t, err)
	attach(t, repository, d.String(), key.sign(t, repository, d.String()))

	n.denied(request(1, image, digest), `no key that rule "signed"`) // by a tag that is not the index
	byTag := request(2, repository+":v1", digest)
	n.prepare(byTag)
	n.ready(byTag)
	if r := n.record(digest); len(r.Signatures) != 1 || r.Signatures[0].Digest.String() != d.String() {
		t.Errorf("remembered %+v", r.Signatures)
	}
}

func (n *node) record(digest string) store.Record {
	n.t.Helper()
	st, err := store.OpenExisting(n.cfg.StoreDir)
	must(n.t, err)
	d, err := store.ParseDigest(digest)
	must(n.t, err)
	im, err := st.Get(d)
	must(n.t, err)
	r, err := im.Record()
	must(n.t, err)
	return r
}

// The verdict is remembered with the image for as long as its key counts.
func TestSignatureIsRemembered(t *testing.T) {
	if !privateMounts(t) {
		return
	}
	n, reg := newNode(t), newRegistry(t)
	n.withVerifier()
	key, next := ecdsaKey(t), ecdsaKey(t)
	image, digest := reg.push(t, "a/b:v1", "inside")
	repository := reg.host + "/a/b"
	n.prepare(request(1, image, digest)) // before there was a rule
	n.ready(request(1, image, digest))
	n.policy(signedBy(key))
	n.denied(request(2, image, digest), `no key that rule "signed"`)
	attach(t, repository, digest, key.sign(t, repository, digest))
	n.prepare(request(3, image, digest))
	n.ready(request(3, image, digest))
	before := reg.requests.Load()
	n.prepare(request(4, image, digest))
	n.ready(request(4, image, digest))
	if asked := reg.requests.Load() - before; asked != 0 || n.log(request(4, image, digest)) != "" {
		t.Errorf("%d requests although the signature was verified; log %q", asked, n.log(request(4, image, digest)))
	}
	n.policy(signedBy(next)) // the key was replaced
	n.denied(request(5, image, digest), `no key that rule "signed"`)
	attach(t, repository, digest, next.sign(t, repository, digest))
	n.prepare(request(6, image, digest))
	n.ready(request(6, image, digest))
	p := signedBy(next)
	p.Rules[0].SignedName = true
	n.policy(p)
	n.prepare(request(8, image, digest))
	n.ready(request(8, image, digest))
	n.policy(policy.Policy{})
	moved, digest2 := reg.push(t, "a/moved:v1", "moved")
	attach(t, reg.host+"/a/moved", digest2, next.sign(t, repository, digest2))
	n.policy(signedBy(next))
	n.prepare(request(9, moved, digest2))
	n.ready(request(9, moved, digest2))
	n.policy(p) // the name counts from now on
	n.denied(request(10, moved, digest2), `no key that rule "signed" (/etc/berth/berth.toml) names has signed it as `+reg.host+"/a/moved")
	p.Rules[0].SignedBy = []string{"/nonexistent/cosign.pub"}
	n.policy(p)
	n.prepare(request(7, image, digest))
	if _, err := n.outcome(request(7, image, digest)); err == nil || fault.Of(err) != fault.Site {
		t.Errorf("a key that is missing: %v", err)
	}
}

// Signatures of the site's own need no registry that has them.
func TestSignaturesInAFolder(t *testing.T) {
	if !privateMounts(t) {
		return
	}
	n, reg := newNode(t), newRegistry(t)
	n.withVerifier()
	key := ecdsaKey(t)
	image, digest := reg.push(t, "a/b:v1", "inside")
	p := signedBy(key)
	p.Signatures = filepath.Join(n.dir, "signatures")
	must(t, os.Mkdir(p.Signatures, 0o755))
	n.policy(p)
	n.denied(request(1, image, digest), `no key that rule "signed"`)

	// What cosign download signature prints; cosign.SignedPayload in its source.
	s := key.sign(t, reg.host+"/a/b", digest)
	line, err := json.Marshal(map[string]any{
		"Base64Signature": base64.StdEncoding.EncodeToString(s.Signature), "Payload": s.Payload,
		"Cert": nil, "Chain": nil, "Bundle": nil, "RFC3161Timestamp": nil,
	})
	must(t, err)
	file := filepath.Join(p.Signatures, strings.Replace(digest, ":", "-", 1)+".json")
	must(t, os.WriteFile(file, append(line, '\n'), 0o644))
	reg.stall(func(r *http.Request) bool { return strings.HasSuffix(r.URL.Path, ".sig") })
	n.prepare(request(2, image, digest))
	n.ready(request(2, image, digest))
	reg.answer()

	// One for another repository does not keep the registry's from being found.
	p.Rules[0].SignedName = true
	n.policy(p)
	image, digest = reg.push(t, "a/d:v1", "both")
	s = key.sign(t, reg.host+"/elsewhere", digest)
	line, err = json.Marshal(map[string]any{"Base64Signature": base64.StdEncoding.EncodeToString(s.Signature), "Payload": s.Payload})
	must(t, err)
	must(t, os.WriteFile(filepath.Join(p.Signatures, strings.Replace(digest, ":", "-", 1)+".json"), line, 0o644))
	attach(t, reg.host+"/a/d", digest, key.sign(t, reg.host+"/a/d", digest))
	n.prepare(request(4, image, digest))
	n.ready(request(4, image, digest))

	image, digest = reg.push(t, "a/c:v1", "more")
	must(t, os.WriteFile(filepath.Join(p.Signatures, strings.Replace(digest, ":", "-", 1)+".json"), []byte("{"), 0o644))
	n.prepare(request(3, image, digest))
	if _, err := n.outcome(request(3, image, digest)); err == nil || fault.Of(err) != fault.Site || !strings.Contains(err.Error(), "is not what cosign download signature prints") {
		t.Errorf("a damaged file: %v", err)
	}
}
