package prolog

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/imagecache/cosign"
	"github.com/berth-hpc/berth/imagecache/store"
)

// A rule may want an image to be signed. Root reads the site's keys and
// compares their fingerprints; what was signed by them, the account finds out
// (signature.go), before the image is pulled. The verdict stays in the image's
// record, so that later jobs need no registry, for as long as the rule names
// the key.

// keys returns the keys that the rule names, as PEM, and their fingerprints.
func (w *worker) keys() (texts, fingerprints []string, err error) {
	for _, path := range w.decision.SignedBy() {
		text, err := cosign.ReadKey(path)
		if err != nil {
			return nil, nil, fault.Wrap("read the key of", w.decision.By(), fault.Site, "ask your administrator to correct signed_by", err)
		}
		fingerprint, err := cosign.Fingerprint(text)
		if err != nil {
			return nil, nil, err
		}
		texts, fingerprints = append(texts, text), append(fingerprints, fingerprint)
	}
	return texts, fingerprints, nil
}

// hasSignature says whether all is as the rule wants it by these signatures.
func (w *worker) hasSignature(have []store.Signature) (bool, error) {
	if len(w.decision.SignedBy()) == 0 {
		return true, nil
	}
	_, fingerprints, err := w.keys()
	if err != nil {
		return false, err
	}
	root, err := w.trustedRoot()
	i := slices.IndexFunc(have, func(s store.Signature) bool {
		return slices.Contains(fingerprints, s.Key) && (!w.decision.SignedName() || isNameOf(s.Name, w.ref)) &&
			(root == "" || s.Log == cosign.LogFingerprint(root))
	})
	if i >= 0 {
		w.signer = have[i].Key
	}
	return i >= 0, err
}

// trustedRoot is the site's, "" where no transparency log is wanted.
func (w *worker) trustedRoot() (string, error) {
	path := w.cfg.Policy.TrustedRoot
	if path == "" {
		return "", nil
	}
	text, err := cosign.ReadTrustedRoot(path)
	return text, fault.Wrap("read the transparency logs", path, fault.Site, "ask your administrator to correct policy.trusted_root", err)
}

// verifySigned has the account look for the signature that the rule wants of
// d, and denies d without one.
func (w *worker) verifySigned(ctx context.Context, d store.Digest) error {
	if len(w.decision.SignedBy()) == 0 {
		return nil
	}
	texts, _, err := w.keys()
	if err != nil {
		return err
	}
	root, err := w.trustedRoot()
	if err != nil {
		return err
	}
	var f *fetcher
	err = w.asking(ctx, func() error {
		f = w.fetcher("/")
		return f.run(ctx, FetchRequest{Image: w.req.Image, Digest: d, Signed: &SignatureRequest{
			Keys: texts, Folder: w.cfg.Policy.Signatures, Verifier: w.cfg.Verifier, SameName: w.decision.SignedName(), TrustedRoot: root,
		}})
	})
	if err == nil {
		w.signedPublic = f.public
	}
	if err != nil {
		return err
	}
	if w.signed, err = recordable(f.verified); err != nil {
		return err
	}
	ok, err := w.hasSignature(w.signed)
	if err == nil && !ok {
		err = w.decision.Unsigned()
	}
	return err
}

// recordable is what the fetcher says, as it goes into a record.
func recordable(all []cosign.Verified) (signatures []store.Signature, err error) {
	if len(all) > cosign.MaxSignatures {
		return nil, &fault.Error{Op: "verify signatures", Blame: fault.Bug, Err: errors.New("the fetcher names too many")}
	}
	for _, v := range all {
		d, err := store.ParseDigest(v.Digest)
		if err != nil {
			return nil, fault.Wrap("verify signatures", "", fault.Bug, "", fmt.Errorf("the fetcher's answer: %w", err))
		}
		signatures = append(signatures, store.Signature{Key: v.Key, Digest: d, Name: fault.Clean(v.Name), Log: fault.Clean(v.Log), Time: time.Now().UTC()})
	}
	return signatures, nil
}

// permitSigned verifies the signature of im, which is at hand, unless that was
// done before it was pulled, and remembers it.
func (w *worker) permitSigned(ctx context.Context, im store.Image) error {
	ok, err := w.hasSignature(w.signed)
	if err == nil && !ok {
		err = w.verifySigned(ctx, im.Digest())
	}
	if err != nil {
		return err
	}
	// What everybody can read must not name repositories that not everybody may.
	if a, err := im.Access(); !w.signedPublic && (err != nil || a.Public) {
		return nil
	}
	if err := im.RememberSignatures(w.signed); err != nil {
		w.log.WithError(err).Warn("remember the image's signature") // then it is verified again
	}
	return nil
}
