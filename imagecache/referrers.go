package imagecache

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/berth-hpc/berth/imagecache/cosign"
	"github.com/berth-hpc/berth/imagecache/store"
)

// bundles returns the Sigstore bundles that ref's repository has for d, as
// newer releases of cosign write them: manifests whose subject d is (OCI
// distribution 1.1). What is none is left out. Nothing is verified.
func bundles(ctx context.Context, ref Reference, d store.Digest, net Network) (all [][]byte, err error) {
	src, err := newRegistrySource(ref, net)
	if err != nil {
		return nil, err
	}
	referrers, err := src.referrers(ctx, d)
	if err != nil {
		return nil, err
	}
	for _, desc := range slices.Backward(referrers) { // the newest are last
		if !mayBeBundle(desc) || len(all) == cosign.MaxSignatures {
			continue
		}
		found, err := bundlesOf(ctx, src, desc)
		if err != nil {
			return nil, err
		}
		all = append(all, found...)
	}
	return all[:min(len(all), cosign.MaxSignatures)], nil
}

// mayBeBundle leaves out what says that it is something else. Some tools give
// the type of the config, which says nothing, in place of the artifact's.
func mayBeBundle(desc v1.Descriptor) bool {
	predicate := desc.Annotations[cosign.PredicateAnnotation]
	return (desc.ArtifactType == "" || desc.ArtifactType == "application/vnd.oci.empty.v1+json" || cosign.IsBundle(desc.ArtifactType)) &&
		(predicate == "" || predicate == cosign.Predicate) && desc.Size <= cosign.MaxBundle
}

// bundlesOf reads what the manifest of one referrer has.
func bundlesOf(ctx context.Context, src *registrySource, desc v1.Descriptor) (all [][]byte, err error) {
	d, err := store.ParseDigest(desc.Digest.String())
	if err != nil {
		return nil, nil // of a kind that Berth has not: none of cosign's
	}
	raw, err := src.manifest(ctx, d)
	if err != nil {
		return nil, err
	}
	m, err := parseManifest(raw)
	if err != nil {
		return nil, nil // it is no manifest of an image
	}
	for _, l := range m.Layers {
		if !cosign.IsBundle(string(l.MediaType)) || l.Size > cosign.MaxBundle || len(all) == cosign.MaxSignatures {
			continue
		}
		text, err := readBlob(ctx, src, l, cosign.MaxBundle)
		if err != nil {
			return nil, err
		}
		all = append(all, text)
	}
	return all, nil
}

// referrers asks what refers to d: by the interface for that, or where a
// registry has none by the tag that stands in for it.
func (s *registrySource) referrers(ctx context.Context, d store.Digest) ([]v1.Descriptor, error) {
	var list v1.IndexManifest
	err := s.each(ctx, func(e *endpoint, last bool) error {
		ctx, cancel := shareOf(ctx, last)
		defer cancel()
		resp, err := e.open(ctx, "referrers/"+d.String(), http.Header{"Accept": {"application/vnd.oci.image.index.v1+json"}})
		if err != nil {
			return orNoTag(err)
		}
		defer resp.Body.Close()
		raw, err := readLimited(resp.Body, s.limit)
		if err == nil && json.Unmarshal(raw, &list) == nil && len(list.Manifests) > 0 {
			s.served = e
			return nil
		}
		return errors.Join(err, errNoReferrers)
	})
	none := (*noTag)(nil)
	if !errors.As(err, &none) {
		return list.Manifests, err
	}
	raw, err := s.getManifest(ctx, strings.Replace(d.String(), ":", "-", 1), store.Digest{})
	if errors.As(err, &none) {
		return nil, nil
	}
	if err == nil && json.Unmarshal(raw, &list) != nil {
		return nil, nil // a tag of somebody's with that name
	}
	return list.Manifests, err
}

// errNoReferrers lets the next host be asked: a mirror may not keep them.
var errNoReferrers = &noTag{errors.New("no manifest refers to the image")}

// orNoTag is err, or that a host does not know the interface, which some say
// in other words than 404.
func orNoTag(err error) error {
	var status *statusError
	if !errors.As(err, &status) {
		return err
	}
	switch status.status {
	case http.StatusNotFound, http.StatusBadRequest, http.StatusMethodNotAllowed, http.StatusNotAcceptable, http.StatusNotImplemented:
		return &noTag{err}
	}
	return err
}
