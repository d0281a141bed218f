package imagecache

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/imagecache/store"
)

// refName is the annotation that holds a tag in an OCI layout
// (OCI image specification, "Image Layout").
const refName = "org.opencontainers.image.ref.name"

// layoutSource is an image in a folder in the OCI image layout.
type layoutSource struct{ ref Reference }

func newLayoutSource(ref Reference) (*layoutSource, error) {
	if _, err := os.Stat(filepath.Join(ref.path, "oci-layout")); err != nil {
		return nil, &fault.Error{
			Op: "open", Arg: ref.String(), Blame: fault.User,
			Remedy: "name a folder that holds oci-layout, index.json and blobs/",
			Err:    fmt.Errorf("not an OCI layout: %w", err),
		}
	}
	return &layoutSource{ref: ref}, nil
}

func (s *layoutSource) local() bool    { return true }
func (s *layoutSource) origin() string { return s.ref.path }

func (s *layoutSource) root(ctx context.Context) ([]byte, error) {
	if !s.ref.digest.IsZero() {
		return s.manifest(ctx, s.ref.digest)
	}
	raw, err := readFile(filepath.Join(s.ref.path, "index.json"), maxManifest)
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
		tag := d.Annotations[refName]
		if tag != "" {
			tags = append(tags, tag)
		}
		if s.ref.tag == "" || tag == s.ref.tag || strings.HasSuffix(tag, ":"+s.ref.tag) {
			found = append(found, d)
		}
	}
	if len(found) == 0 || s.ref.tag == "" && len(tags) > 1 {
		return nil, noSuchTag(s.ref, tags)
	}
	return found, nil
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
	raw, err := readFile(s.blobPath(d), maxManifest)
	if err != nil {
		return nil, err
	}
	if got := digestOf(raw); got != d {
		return nil, mismatch("manifest", d.String(), got.String())
	}
	return raw, nil
}

func (s *layoutSource) blob(_ context.Context, desc v1.Descriptor) (io.ReadCloser, error) {
	d, err := store.ParseDigest(desc.Digest.String())
	if err != nil {
		return nil, err
	}
	return os.Open(s.blobPath(d))
}

func (s *layoutSource) blobPath(d store.Digest) string {
	return filepath.Join(s.ref.path, "blobs", "sha256", d.Hex())
}

func readFile(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readLimited(f, limit)
}
