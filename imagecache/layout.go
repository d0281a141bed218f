package imagecache

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/imagecache/store"
)

// refName is the annotation that holds a tag in an OCI layout
// (OCI image specification, "Image Layout").
const refName = "org.opencontainers.image.ref.name"

// fullName is the annotation with the whole name, where Docker (25.0 and
// later) and containerd give refName the tag alone.
const fullName = "io.containerd.image.name"

// layoutSource is an image in the OCI image layout, in a folder or in an
// archive of one.
type layoutSource struct {
	ref Reference
	files
}

func newLayoutSource(ref Reference, f files) (*layoutSource, error) {
	if _, err := f.small("oci-layout", maxManifest); err != nil {
		return nil, &fault.Error{
			Op: "open", Arg: ref.String(), Blame: fault.User,
			Remedy: "name a folder, or an archive of one, that holds oci-layout, index.json and blobs/",
			Err:    fmt.Errorf("not an OCI layout: %w", err),
		}
	}
	return &layoutSource{ref, f}, nil
}

func (s *layoutSource) local() bool    { return true }
func (s *layoutSource) origin() string { return s.ref.path }

func (s *layoutSource) root(ctx context.Context) ([]byte, error) {
	if !s.ref.digest.IsZero() {
		return s.manifest(ctx, s.ref.digest)
	}
	raw, err := s.small("index.json", maxManifest)
	if err != nil {
		return nil, err
	}
	var index v1.IndexManifest
	if err := json.Unmarshal(raw, &index); err != nil {
		return nil, damaged("index.json: %w", err)
	}
	if index.Manifests, err = s.tagged(index.Manifests); err != nil {
		return nil, err
	}
	return json.Marshal(index)
}

// tagged returns the descriptors that carry the reference's tag, or
// all of them if it has none and they do not leave a choice of images.
func (s *layoutSource) tagged(all []v1.Descriptor) ([]v1.Descriptor, error) {
	var found []v1.Descriptor
	var tags []string
	for _, d := range all {
		names := namesOf(d)
		if len(names) > 0 {
			tags = append(tags, names[0])
		}
		if s.ref.tag == "" || slices.ContainsFunc(names, s.ref.isTag) {
			found = append(found, d)
		}
	}
	if len(found) == 0 || s.ref.tag == "" && len(tags) > 1 {
		return nil, noSuchTag(s.ref, tags)
	}
	return found, nil
}

// namesOf returns what a descriptor in a layout is called, the longest first.
func namesOf(d v1.Descriptor) []string {
	var names []string
	for _, key := range []string{fullName, refName} {
		if name := d.Annotations[key]; name != "" {
			names = append(names, name)
		}
	}
	return names
}

// isTag reports whether the tag that was asked for, which may be a whole
// name or its end, means name.
func (r Reference) isTag(name string) bool {
	return r.tag != "" && (name == r.tag || strings.HasSuffix(name, ":"+r.tag) || strings.HasSuffix(name, "/"+r.tag))
}

// noSuchTag says which tags a file has.
func noSuchTag(ref Reference, tags []string) error {
	cause := errors.New("it holds several images")
	if ref.tag != "" {
		cause = fmt.Errorf("it holds no image tagged %s", quote(ref.tag))
	} else if len(tags) == 0 {
		cause = errors.New("it holds no image")
	}
	return &fault.Error{
		Op: "choose image", Blame: fault.User, Err: cause,
		Remedy: "name one of its tags: " + orNone(strings.Join(tags, ", ")),
	}
}

func (s *layoutSource) manifest(_ context.Context, d store.Digest) ([]byte, error) {
	raw, err := s.small(blobName(d), maxManifest)
	if err != nil {
		return nil, err
	}
	if got := digestOf(raw); got != d {
		return nil, mismatch("manifest", d.String(), got.String())
	}
	return raw, nil
}

func (s *layoutSource) blob(ctx context.Context, desc v1.Descriptor) (io.ReadCloser, error) {
	d, err := store.ParseDigest(desc.Digest.String())
	if err != nil {
		return nil, err
	}
	return s.open(ctx, blobName(d))
}

func blobName(d store.Digest) string { return "blobs/sha256/" + d.Hex() }
