package imagecache

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/imagecache/store"
)

// maxIndexDepth bounds how many indexes lead to a manifest. OCI layouts have
// two where a registry has one.
const maxIndexDepth = 4

// Limits in bytes on what is held in memory. Registries refuse larger
// manifests themselves (4 MiB: OCI distribution specification).
const (
	maxManifest = 4 << 20
	maxConfig   = 8 << 20
)

// Resolve returns the digest of the manifest that ref names for platform. An
// index is followed to its manifest. For a registry that serves anonymous
// readers it costs one request.
func Resolve(ctx context.Context, ref Reference, platform Platform, net Network) (store.Digest, error) {
	src, err := openSource(ctx, ref, net)
	if err != nil {
		return store.Digest{}, imageFault("resolve", ref, err)
	}
	d, err := resolve(ctx, src, orHost(platform))
	return d, imageFault("resolve", ref, err)
}

// Confirm asks for the manifest d in ref's repository, and fails as a pull does
// when it is not let at it, in the same words.
func Confirm(ctx context.Context, ref Reference, d store.Digest, net Network) error {
	src, err := openSource(ctx, ref, net)
	if err == nil {
		_, err = src.manifest(ctx, d)
	}
	return imageFault("pull", ref, err)
}

func orHost(p Platform) Platform {
	if p == (Platform{}) {
		return HostPlatform()
	}
	return p
}

// resolve follows indexes from the root of src until a descriptor
// names a manifest. That manifest itself is not fetched.
func resolve(ctx context.Context, src source, platform Platform) (store.Digest, error) {
	raw, err := src.root(ctx)
	for range maxIndexDepth {
		if err != nil {
			return store.Digest{}, err
		}
		m, err := parseManifest(raw)
		if err != nil {
			return store.Digest{}, err
		}
		if m.Manifests == nil {
			return digestOf(raw), nil
		}
		desc, err := choose(m.Manifests, platform)
		if err != nil {
			return store.Digest{}, err
		}
		d, err := store.ParseDigest(desc.Digest.String())
		if err != nil || !isIndex(desc.MediaType) {
			return d, err
		}
		raw, err = src.manifest(ctx, d)
		if err != nil {
			return store.Digest{}, err
		}
	}
	return store.Digest{}, damaged("its indexes are nested deeper than %d", maxIndexDepth)
}

// openRoot reads the manifest or index that ref itself names.
func openRoot(ctx context.Context, ref Reference, net Network) (src source, raw []byte, m *anyManifest, err error) {
	if src, err = openSource(ctx, ref, net); err != nil {
		return nil, nil, nil, err
	}
	if raw, err = src.root(ctx); err != nil {
		return nil, nil, nil, err
	}
	m, err = parseManifest(raw)
	return src, raw, m, err
}

// anyManifest has the fields of image manifests and of indexes, in their OCI
// and Docker forms, which differ in media types only.
type anyManifest struct {
	SchemaVersion int             `json:"schemaVersion"`
	MediaType     types.MediaType `json:"mediaType"`
	Manifests     []v1.Descriptor `json:"manifests"`
	Config        *v1.Descriptor  `json:"config"`
	Layers        []v1.Descriptor `json:"layers"`

	Annotations map[string]string `json:"annotations"`
}

func parseManifest(raw []byte) (*anyManifest, error) {
	var m anyManifest
	if err := json.Unmarshal(raw, &m); err != nil {
		return nil, damaged("its manifest is not JSON: %w", err)
	}
	switch {
	case m.SchemaVersion == 1:
		return nil, &fault.Error{
			Op: "read manifest", Blame: fault.User,
			Remedy: "pull it with Docker or podman and push it again",
			Err:    errors.New("the image has Docker's schema 1, which was given up in 2017"),
		}
	case m.Manifests == nil && m.Config == nil:
		return nil, damaged("its manifest has neither a config nor manifests")
	}
	return &m, nil
}

func isIndex(t types.MediaType) bool {
	return t == types.OCIImageIndex || t == types.DockerManifestList
}

// choose picks the manifest for p, see Platform.better. In an OCI layout descriptors often name no platform at all; then
// there has to be one only.
func choose(manifests []v1.Descriptor, p Platform) (v1.Descriptor, error) {
	var found, unnamed []v1.Descriptor
	for _, m := range manifests {
		switch {
		case p.matches(m.Platform):
			found = append(found, m)
		case m.Platform == nil:
			unnamed = append(unnamed, m)
		}
	}
	if len(found) > 0 {
		slices.SortStableFunc(found, func(a, b v1.Descriptor) int {
			return p.better(a.Platform, b.Platform)
		})
		return found[0], nil
	}
	if len(unnamed) == 1 {
		return unnamed[0], nil
	}
	return v1.Descriptor{}, wrongPlatform(p, platformsOf(manifests))
}

func platformsOf(manifests []v1.Descriptor) []string {
	var have []string
	for _, m := range manifests {
		if m.Platform == nil || m.Platform.OS == "unknown" {
			continue // build attestations say "unknown/unknown"
		}
		p := Platform{OS: m.Platform.OS, Architecture: m.Platform.Architecture, Variant: m.Platform.Variant}
		have = append(have, p.String())
	}
	return have
}

func wrongPlatform(want Platform, have []string) error {
	return &fault.Error{
		Op: "choose platform", Arg: want.String(), Blame: fault.User,
		Remedy: "use an image built for " + want.String() + ", or nodes of another kind",
		Err:    fmt.Errorf("the image is for %s", orNone(strings.Join(have, ", "))),
	}
}

func orNone(s string) string {
	if s == "" {
		return "no platform that it names"
	}
	return s
}

// An image is one platform's image, read from its manifest and config.
type image struct {
	digest   store.Digest
	config   *v1.ConfigFile
	layers   []v1.Descriptor
	platform Platform

	annotations map[string]string
}

// openImage reads the manifest d and its config, and checks that they belong
// together and to platform.
func openImage(ctx context.Context, src source, d store.Digest, platform Platform) (*image, error) {
	raw, err := src.manifest(ctx, d)
	if err != nil {
		return nil, err
	}
	m, err := parseManifest(raw)
	if err != nil {
		return nil, err
	}
	if m.Config == nil {
		return nil, damaged("%s is an index of images, not an image", d)
	}
	config, err := readConfig(ctx, src, *m.Config)
	if err != nil {
		return nil, err
	}
	im := &image{
		digest: d, config: config, layers: m.Layers, annotations: m.Annotations,
		platform: Platform{OS: config.OS, Architecture: config.Architecture, Variant: config.Variant}.normal(),
	}
	return im, im.check(platform)
}

func (im *image) check(want Platform) error {
	if len(im.layers) != len(im.config.RootFS.DiffIDs) {
		return damaged("it has %d layers, but its config speaks of %d", len(im.layers), len(im.config.RootFS.DiffIDs))
	}
	have := &v1.Platform{OS: im.platform.OS, Architecture: im.platform.Architecture, Variant: im.platform.Variant}
	if !want.matches(have) {
		return wrongPlatform(want, []string{im.platform.String()})
	}
	return nil
}

func readConfig(ctx context.Context, src source, desc v1.Descriptor) (*v1.ConfigFile, error) {
	switch desc.MediaType {
	case types.OCIConfigJSON, types.DockerConfigJSON, "":
	default:
		return nil, &fault.Error{
			Op: "read image", Blame: fault.User,
			Remedy: "name a container image; charts, models and other artifacts cannot be run",
			Err:    fmt.Errorf("this is no container image but a %s", quote(string(desc.MediaType))),
		}
	}
	limit := int64(maxConfig)
	if r, ok := src.(*registrySource); ok {
		limit = 2 * r.limit
	}
	raw, err := readBlob(ctx, src, desc, limit)
	if err != nil {
		return nil, err
	}
	config, err := v1.ParseConfigFile(bytes.NewReader(raw))
	if err != nil {
		return nil, damaged("its config is not JSON: %w", err)
	}
	return config, nil
}

// digestOf returns the digest of raw, which is valid by construction.
func digestOf(raw []byte) store.Digest {
	sum := sha256.Sum256(raw)
	d, _ := store.ParseDigest("sha256:" + hex.EncodeToString(sum[:]))
	return d
}

// storeManifest is what the store keeps of an image's manifest and config.
func (im *image) storeManifest() store.Manifest {
	c := im.config.Config
	volumes := make([]string, 0, len(c.Volumes))
	for v := range c.Volumes {
		volumes = append(volumes, v)
	}
	slices.Sort(volumes)
	return store.Manifest{
		Digest: im.digest, OS: im.platform.OS, Architecture: im.platform.Architecture, Variant: im.platform.Variant,
		Config: store.Config{
			Env: c.Env, WorkingDir: c.WorkingDir, Entrypoint: c.Entrypoint, Cmd: c.Cmd,
			User: c.User, Labels: c.Labels, StopSignal: c.StopSignal, Volumes: volumes,
		},
	}
}
