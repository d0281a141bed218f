package imagecache

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"

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
	ref      Reference
	members  map[string]member
	layers   map[v1.Hash]string // diffID -> member
	config   []byte
	made     []byte // the manifest
	madeName store.Digest
}

// A member is where a file lies in the archive.
type member struct{ offset, size int64 }

// archiveEntry is one image in the archive's manifest.json.
type archiveEntry struct {
	Config   string
	RepoTags []string
	Layers   []string
}

func newArchiveSource(ref Reference) (*archiveSource, error) {
	s := &archiveSource{ref: ref}
	if err := s.load(); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *archiveSource) load() error {
	f, err := os.Open(s.ref.path)
	if err != nil {
		return err
	}
	defer f.Close()
	if s.members, err = indexTar(f); err != nil {
		return notArchive(err)
	}
	entry, err := s.chooseEntry(f)
	if err != nil {
		return err
	}
	if s.config, err = s.readMember(f, entry.Config, maxConfig); err != nil {
		return err
	}
	return s.makeManifest(entry)
}

func notArchive(err error) error {
	return &fault.Error{
		Op: "read archive", Blame: fault.User,
		Remedy: "name an uncompressed file made by docker save or podman save", Err: err,
	}
}

// indexTar finds the files of a tar without reading them: archive/tar skips
// by seeking. Old versions of docker save store a layer that
// two images share as a symbolic link to the other's.
func indexTar(f *os.File) (map[string]member, error) {
	members, links := map[string]member{}, map[string]string{}
	tr := tar.NewReader(f)
	for {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, err
		}
		offset, err := f.Seek(0, io.SeekCurrent)
		if err != nil {
			return nil, err
		}
		name := path.Clean(h.Name)
		switch h.Typeflag {
		case tar.TypeReg:
			members[name] = member{offset: offset, size: h.Size}
		case tar.TypeSymlink:
			links[name] = path.Join(path.Dir(name), h.Linkname)
		}
	}
	for name, target := range links {
		if m, ok := members[target]; ok {
			members[name] = m
		}
	}
	return members, nil
}

func (s *archiveSource) readMember(f *os.File, name string, limit int64) ([]byte, error) {
	m, ok := s.members[path.Clean(name)]
	if !ok {
		return nil, notArchive(fmt.Errorf("%s is not in it", quote(name)))
	}
	return readLimited(io.NewSectionReader(f, m.offset, m.size), limit)
}

func (s *archiveSource) chooseEntry(f *os.File) (archiveEntry, error) {
	raw, err := s.readMember(f, "manifest.json", maxManifest)
	if err != nil {
		return archiveEntry{}, err
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
		if slices.ContainsFunc(e.RepoTags, s.isTag) {
			return e, nil
		}
		tags = append(tags, e.RepoTags...)
	}
	return archiveEntry{}, noSuchTag(s.ref, tags)
}

// isTag reports whether the tag that was asked for, which may be a whole
// name or the part after the colon, means name.
func (s *archiveSource) isTag(name string) bool {
	return s.ref.tag != "" && (name == s.ref.tag || strings.HasSuffix(name, ":"+s.ref.tag) ||
		strings.HasSuffix(name, "/"+s.ref.tag))
}

func (s *archiveSource) makeManifest(entry archiveEntry) error {
	config, err := v1.ParseConfigFile(bytes.NewReader(s.config))
	if err != nil {
		return damaged("its config is not JSON: %w", err)
	}
	if len(entry.Layers) != len(config.RootFS.DiffIDs) {
		return damaged("it has %d layers, but its config speaks of %d", len(entry.Layers), len(config.RootFS.DiffIDs))
	}
	m := v1.Manifest{SchemaVersion: 2, MediaType: types.DockerManifestSchema2}
	m.Config = v1.Descriptor{MediaType: types.DockerConfigJSON, Size: int64(len(s.config)), Digest: hashOf(s.config)}
	s.layers = map[v1.Hash]string{}
	for i, diffID := range config.RootFS.DiffIDs {
		s.layers[diffID] = path.Clean(entry.Layers[i])
		m.Layers = append(m.Layers, v1.Descriptor{MediaType: types.DockerUncompressedLayer, Size: -1, Digest: diffID})
	}
	if s.made, err = json.Marshal(m); err == nil {
		s.madeName = digestOf(s.made)
	}
	return err
}

func hashOf(raw []byte) v1.Hash {
	return v1.Hash{Algorithm: "sha256", Hex: digestOf(raw).Hex()}
}

func (s *archiveSource) local() bool    { return true }
func (s *archiveSource) origin() string { return s.ref.path }

func (s *archiveSource) root(context.Context) ([]byte, error) { return s.made, nil }

func (s *archiveSource) manifest(_ context.Context, d store.Digest) ([]byte, error) {
	if d != s.madeName {
		return nil, &fault.Error{
			Op: "read archive", Blame: fault.User,
			Remedy: "name the file that the digest was resolved from; it may have been replaced since",
			Err:    fmt.Errorf("it holds %v, not %v", s.madeName, d),
		}
	}
	return s.made, nil
}

func (s *archiveSource) blob(_ context.Context, desc v1.Descriptor) (io.ReadCloser, error) {
	if desc.Digest == hashOf(s.config) {
		return io.NopCloser(bytes.NewReader(s.config)), nil
	}
	m, ok := s.members[s.layers[desc.Digest]]
	if !ok {
		return nil, notArchive(errors.New("a layer that its manifest names is missing"))
	}
	f, err := os.Open(s.ref.path)
	if err != nil {
		return nil, err
	}
	section := io.NewSectionReader(f, m.offset, m.size)
	return s.uncompressed(section, f)
}

// uncompressed undoes the compression that some tools apply to layers, since
// the manifest we made names them by what is inside.
func (s *archiveSource) uncompressed(r io.Reader, f *os.File) (io.ReadCloser, error) {
	plain, err := decompress(r)
	if err != nil {
		f.Close()
		return nil, err
	}
	return readCloser{plain, func() error { return errors.Join(plain.Close(), f.Close()) }}, nil
}
