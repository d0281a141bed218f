package imagecache

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/imagecache/store"
)

// archiveSource is an image in the tar file of docker save or podman save.
//
// Such a file has no manifest, only a config and layers, mostly uncompressed.
// We make the manifest: the layers are named by their diffIDs, which the
// config lists, and their sizes are left out (-1: any). So a digest costs no
// more than reading the config, and one image has one digest whatever
// tool saved it. go-containerregistry instead compresses all layers to
// learn the digests that they would have in a registry.
type archiveSource struct {
	ref Reference
	*tarFile
	layers map[v1.Hash]string // diffID -> member
	madeImage
}

// archiveEntry is one image in the archive's manifest.json.
type archiveEntry struct {
	Config   string
	RepoTags []string
	Layers   []string
}

func newArchiveSource(ref Reference, f *tarFile) (*archiveSource, error) {
	s := &archiveSource{ref: ref, tarFile: f}
	entry, err := s.chooseEntry()
	if err != nil {
		return nil, err
	}
	config, err := s.small(entry.Config, maxConfig)
	if err != nil {
		return nil, notArchive(err)
	}
	return s, s.make(config, entry)
}

func notArchive(err error) error {
	return &fault.Error{
		Op: "read archive", Blame: fault.User,
		Remedy: "name a file made by docker save or podman save; if it is one, make it again", Err: err,
	}
}

func (s *archiveSource) chooseEntry() (archiveEntry, error) {
	raw, err := s.small("manifest.json", maxManifest)
	if err != nil {
		return archiveEntry{}, notArchive(err)
	}
	var entries []archiveEntry
	if err := json.Unmarshal(raw, &entries); err != nil {
		return archiveEntry{}, notArchive(err)
	}
	if s.ref.tag == "" && len(entries) == 1 {
		return entries[0], nil
	}
	var tags []string
	for _, e := range entries {
		if slices.ContainsFunc(e.RepoTags, s.ref.isTag) {
			return e, nil
		}
		tags = append(tags, e.RepoTags...)
	}
	return archiveEntry{}, noSuchTag(s.ref, tags)
}

// make makes the image that entry describes.
func (s *archiveSource) make(config []byte, entry archiveEntry) error {
	parsed, err := v1.ParseConfigFile(bytes.NewReader(config))
	if err != nil {
		return damaged("its config is not JSON: %w", err)
	}
	diffIDs := parsed.RootFS.DiffIDs
	if len(entry.Layers) != len(diffIDs) {
		return damaged("it has %d layers, but its config speaks of %d", len(entry.Layers), len(diffIDs))
	}
	s.layers = map[v1.Hash]string{}
	for i, diffID := range diffIDs {
		s.layers[diffID] = entry.Layers[i]
	}
	s.madeImage, err = makeImage(config, diffIDs)
	return err
}

func (s *archiveSource) local() bool    { return true }
func (s *archiveSource) origin() string { return s.ref.path }

func (s *archiveSource) blob(ctx context.Context, desc v1.Descriptor) (io.ReadCloser, error) {
	if desc.Digest == hashOf(s.config) {
		return io.NopCloser(bytes.NewReader(s.config)), nil
	}
	stored, err := s.open(ctx, s.layers[desc.Digest])
	if err != nil {
		return nil, notArchive(err)
	}
	// The manifest that we made names layers by what is inside.
	plain, err := decompress(stored)
	if err != nil {
		stored.Close()
		return nil, err
	}
	return readCloser{plain, func() error { return errors.Join(plain.Close(), stored.Close()) }}, nil
}

// madeImage is the manifest and config of an image that had no manifest.
type madeImage struct {
	config, manifestRaw []byte
	digest              store.Digest
}

// makeImage makes the manifest for a config and layers without compression.
func makeImage(config []byte, diffIDs []v1.Hash) (madeImage, error) {
	m := v1.Manifest{SchemaVersion: 2, MediaType: types.DockerManifestSchema2}
	m.Config = v1.Descriptor{MediaType: types.DockerConfigJSON, Size: int64(len(config)), Digest: hashOf(config)}
	for _, diffID := range diffIDs {
		m.Layers = append(m.Layers, v1.Descriptor{MediaType: types.DockerUncompressedLayer, Size: -1, Digest: diffID})
	}
	raw, err := json.Marshal(m)
	return madeImage{config: config, manifestRaw: raw, digest: digestOf(raw)}, err
}

func hashOf(raw []byte) v1.Hash {
	return v1.Hash{Algorithm: "sha256", Hex: digestOf(raw).Hex()}
}

//nolint:unparam // it is a source, and others fail
func (m *madeImage) root(context.Context) ([]byte, error) { return m.manifestRaw, nil }

func (m *madeImage) manifest(_ context.Context, d store.Digest) ([]byte, error) {
	if d != m.digest {
		return nil, &fault.Error{
			Op: "read image", Blame: fault.User,
			Remedy: "name the file or folder that the digest was resolved from; it may have been changed since",
			Err:    fmt.Errorf("it holds %v, not %v", m.digest, d),
		}
	}
	return m.manifestRaw, nil
}
