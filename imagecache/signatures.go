package imagecache

import (
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"slices"

	"github.com/berth-hpc/berth/imagecache/cosign"
	"github.com/berth-hpc/berth/imagecache/store"
)

// Chain returns the digests of the indexes by which ref names image d, the
// outermost first; none if it does not, as when a tag has moved. A signature
// over any of them covers the image.
func Chain(ctx context.Context, ref Reference, d store.Digest, platform Platform, net Network) ([]store.Digest, error) {
	src, err := openSource(ctx, ref, net)
	if err != nil {
		return nil, imageFault("verify", ref, err)
	}
	chain, err := chainOf(ctx, src, d, orHost(platform))
	return chain, imageFault("verify", ref, err)
}

// chainOf follows indexes from the root of src down to d; the digest of each
// is of the bytes that name the next. None where they lead elsewhere, as when
// a tag has moved.
func chainOf(ctx context.Context, src source, d store.Digest, platform Platform) (chain []store.Digest, err error) {
	raw, err := src.root(ctx)
	for range maxIndexDepth {
		if err != nil {
			return nil, err
		}
		m, err := parseManifest(raw)
		if err != nil || m.Manifests == nil {
			return nil, err
		}
		chain = append(chain, digestOf(raw))
		desc, err := choose(m.Manifests, platform)
		if err != nil {
			return nil, err
		}
		next, err := store.ParseDigest(desc.Digest.String())
		switch {
		case err != nil:
			return nil, err
		case next == d:
			return chain, nil
		case !isIndex(desc.MediaType):
			return nil, nil
		}
		if raw, err = src.manifest(ctx, next); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

// Signatures returns what ref's repository has for d: by the name that cosign
// gave to signatures, sha256-<hex>.sig, and bundles that refer to it. None is
// no error, and what is none is left out. Nothing is verified.
func Signatures(ctx context.Context, ref Reference, d store.Digest, net Network) (all cosign.Claims, err error) {
	ref.tag, ref.digest = "sha256-"+d.Hex()+".sig", store.Digest{}
	all.Signatures, err = signatures(ctx, ref, net)
	if status := (*statusError)(nil); errors.As(err, &status) && status.status == http.StatusNotFound {
		err = nil
	}
	if err == nil {
		all.Bundles, err = bundles(ctx, ref, d, net)
	}
	return all, imageFault("get the signatures of", ref, err)
}

func signatures(ctx context.Context, ref Reference, net Network) (all []cosign.Signature, err error) {
	src, _, m, err := openRoot(ctx, ref, net)
	if err != nil {
		return nil, err
	}
	// The newest are last.
	for _, l := range slices.Backward(m.Layers) {
		signature, err := base64.StdEncoding.DecodeString(l.Annotations[cosign.Annotation])
		if err != nil || len(signature) == 0 || l.MediaType != cosign.MediaType || l.Size > cosign.MaxPayload || len(all) == cosign.MaxSignatures {
			continue
		}
		payload, err := readBlob(ctx, src, l, cosign.MaxPayload)
		if err != nil {
			return nil, err
		}
		all = append(all, cosign.Signature{Payload: payload, Signature: signature, Log: []byte(l.Annotations[cosign.LogAnnotation])})
	}
	return all, nil
}
