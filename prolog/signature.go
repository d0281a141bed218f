package prolog

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"

	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/imagecache"
	"github.com/berth-hpc/berth/imagecache/cosign"
	"github.com/berth-hpc/berth/imagecache/store"
	"github.com/berth-hpc/berth/prolog/jobstate"
)

// A SignatureRequest is what the worker asks the fetcher about an image's
// signatures.
type SignatureRequest struct {
	Keys     []string `json:"keys"`     // PEM
	Folder   string   `json:"folder"`   // with signatures of the site's, "" for none
	Verifier string   `json:"verifier"` // the path of berth-verify
	// TrustedRoot names transparency logs of which one must have the signature;
	// "" for none.
	TrustedRoot string `json:"trusted_root,omitempty"`
	// SameName leaves out what was signed for another repository.
	SameName bool `json:"same_name"`
}

// maxSignatureKeys bounds what the keys of a request take, in bytes.
const maxSignatureKeys = 1<<20 + 2*cosign.MaxTrustedRoot

// verifySignatures is the fetcher's part: what the keys' owners have signed of
// d. The site's folder is looked into first, so that no registry need be
// asked for what is there.
func verifySignatures(ctx context.Context, ref imagecache.Reference, d store.Digest, req SignatureRequest, opts imagecache.FetchOptions) ([]cosign.Verified, error) {
	local, err := req.local(d)
	if err != nil {
		return nil, err
	}
	if good, err := verified(ctx, ref, d, req, local); err != nil || len(good) > 0 {
		return good, err
	}
	if good, err := signedAs(ctx, ref, d, req, opts); err != nil || len(good) > 0 {
		return good, err
	}
	chain, err := imagecache.Chain(ctx, ref, d, opts.Platform, opts.Network)
	if err != nil {
		return nil, err
	}
	for _, index := range chain {
		if good, err := signedAs(ctx, ref, index, req, opts); err != nil || len(good) > 0 {
			return good, err
		}
	}
	return nil, nil
}

// signedAs looks for signatures of d itself, in the folder and the registry.
func signedAs(ctx context.Context, ref imagecache.Reference, d store.Digest, req SignatureRequest, opts imagecache.FetchOptions) ([]cosign.Verified, error) {
	local, err := req.local(d)
	if err != nil {
		return nil, err
	}
	all, err := imagecache.Signatures(ctx, ref, d, opts.Network)
	if err != nil {
		return nil, err
	}
	return verified(ctx, ref, d, req, local.Add(all))
}

// local returns the site's own copies of d's signatures.
func (r SignatureRequest) local(d store.Digest) (cosign.Claims, error) {
	if r.Folder == "" {
		return cosign.Claims{}, nil
	}
	path := filepath.Join(r.Folder, "sha256-"+d.Hex()+".json")
	all, err := cosign.ReadFile(path)
	return all, fault.Wrap("read signatures", path, fault.Site, "write it by: cosign download signature IMAGE", err)
}

// verified asks berth-verify, and leaves out what is about something else.
func verified(ctx context.Context, ref imagecache.Reference, d store.Digest, req SignatureRequest, all cosign.Claims) ([]cosign.Verified, error) {
	if all.None() {
		return nil, nil
	}
	answer, err := askVerifier(ctx, d, req, all)
	if err != nil {
		return nil, fault.Wrap("verify signatures", req.Verifier, fault.Site, "ask your administrator whether Berth is installed whole, and whether the keys are good", err)
	}
	return slices.DeleteFunc(answer.Verified, func(v cosign.Verified) bool {
		return v.Digest != d.String() || req.SameName && !isNameOf(v.Name, ref)
	}), nil
}

func askVerifier(ctx context.Context, d store.Digest, req SignatureRequest, all cosign.Claims) (answer cosign.Answer, err error) {
	input, err := json.Marshal(cosign.Request{Keys: req.Keys, Digest: d.String(), Claims: all, TrustedRoot: req.TrustedRoot})
	if err != nil {
		return answer, err
	}
	var out, complaint bytes.Buffer
	cmd := exec.CommandContext(ctx, req.Verifier)
	cmd.Env, cmd.Dir, cmd.Stdin, cmd.Stdout, cmd.Stderr = jobstate.Environment(), "/", bytes.NewReader(input), &out, &complaint
	if err := cmd.Run(); err != nil {
		return answer, errors.Join(err, errorText(complaint.Bytes()))
	}
	if err := json.Unmarshal(out.Bytes(), &answer); err != nil {
		return answer, fmt.Errorf("read its answer: %w", err)
	}
	return answer, nil
}

// errorText is what a program said; nil for nothing.
func errorText(text []byte) error {
	if text = bytes.TrimSpace(text); len(text) > 0 {
		return errors.New(fault.Clean(string(text)))
	}
	return nil
}

// isNameOf says whether a name has the repository of ref.
func isNameOf(name string, ref imagecache.Reference) bool {
	other, err := imagecache.ParseReference(name)
	return err == nil && other.Kind() == imagecache.Registry && imageOf(other).String() == imageOf(ref).String()
}
