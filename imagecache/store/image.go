package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// maxJSON bounds the two JSON files of an image, in bytes. The largest image
// configs known are a few hundred KiB of history, which we do not keep.
const maxJSON = 1 << 20

// An Image is one complete image in a store. Only a Store makes one.
type Image struct {
	dir    string
	digest Digest
}

// Digest returns the digest of the image's manifest.
func (im Image) Digest() Digest { return im.digest }

// Key returns the name of the image's folder, "<hex>.<policy>".
func (im Image) Key() string { return filepath.Base(im.dir) }

// Dir returns the image's folder.
func (im Image) Dir() string { return im.dir }

// Rootfs returns the path of the squashfs file.
func (im Image) Rootfs() string { return filepath.Join(im.dir, RootfsName) }

// Open opens the squashfs file for reading. An opened image stays readable
// when the store removes it. The error is ErrNotFound when it has.
func (im Image) Open() (*os.File, error) {
	f, err := openRegular(im.Rootfs())
	return f, siteError("open image", im.digest.String(), missing(err))
}

// Tree returns where the image's files lie as a folder, if they do: in a
// user's own store, on machines where users cannot mount.
func (im Image) Tree() string {
	root := filepath.Dir(filepath.Dir(filepath.Dir(im.dir)))
	return filepath.Join(root, treesName, im.Key())
}

// Manifest is image.json: what runs need to know of an image.
type Manifest struct {
	Digest       Digest `json:"digest"`
	OS           string `json:"os"`
	Architecture string `json:"architecture"`
	Variant      string `json:"variant,omitempty"`
	Config       Config `json:"config"`
}

// Config is the part of an OCI image config that says how to run the image.
type Config struct {
	Env        []string          `json:"Env,omitempty"` // NAME=VALUE
	WorkingDir string            `json:"WorkingDir,omitempty"`
	Entrypoint []string          `json:"Entrypoint,omitempty"`
	Cmd        []string          `json:"Cmd,omitempty"`
	User       string            `json:"User,omitempty"`
	Labels     map[string]string `json:"Labels,omitempty"`
	StopSignal string            `json:"StopSignal,omitempty"`
	Volumes    []string          `json:"Volumes,omitempty"`
}

// Record is record.json: where an image came from and what that cost.
type Record struct {
	Digest     Digest    `json:"digest"`
	References []string  `json:"references"` // canonical forms it was asked for by, oldest first
	Source     string    `json:"source"`     // host, folder or file that served it
	Created    time.Time `json:"created"`    // end of the conversion, UTC
	Layers     int       `json:"layers"`
	// Sizes in bytes: the layers as transferred, the layers as tar streams,
	// the squashfs file.
	Compressed   int64 `json:"compressed_bytes"`
	Uncompressed int64 `json:"uncompressed_bytes"`
	Squashed     int64 `json:"squashed_bytes"`
	// SHA256 of the squashfs file, 64 hex digits; see Verify.
	SHA256 string `json:"squashed_sha256"`
	// Times in seconds of wall clock, by phase: "pull", "unpack", "squash",
	// "total". Phases overlap, so they may add up to more than the total.
	Seconds   map[string]float64 `json:"seconds"`
	Converter string             `json:"converter"`
	Policy    string             `json:"policy"`
	Version   string             `json:"berth_version"`
	// Origins are the repositories that all of it was pulled from, in a store
	// that serves several users; see Access.
	Origins []Origin `json:"origins,omitempty"`
	// Signatures are those that were verified for a site's policy.
	Signatures []Signature `json:"signatures,omitempty"`
	// History is how the image was made, for people; nil where an older Berth
	// converted it, or where it is too long to be kept.
	History *History `json:"history,omitempty"`
}

// A History is what an image says of its making. All of it are its maker's
// words, but for digests and sizes.
type History struct {
	Author string    `json:"author,omitempty"`
	Built  time.Time `json:"built,omitzero"`
	// Base is what the image names as the image it was built on, and of which
	// digest.
	Base       string `json:"base,omitempty"`
	BaseDigest Digest `json:"base_digest,omitzero"`
	Steps      []Step `json:"steps"` // in order; those with a Layer are all of the image's
}

// A Step of a History made a layer, or changed the config alone.
type Step struct {
	Layer   *Layer    `json:"layer,omitempty"`
	Built   time.Time `json:"built,omitzero"`
	Command string    `json:"command,omitempty"`
	Author  string    `json:"author,omitempty"`
	Comment string    `json:"comment,omitempty"`
}

// A Layer is known by what it unpacks to: its digest is another one with
// another compression.
type Layer struct {
	Digest     Digest `json:"blob,omitzero"` // as transferred; zero in some archives
	DiffID     Digest `json:"diff_id"`
	Compressed int64  `json:"compressed_bytes,omitempty"`
}

// A Signature says that somebody vouched for an image.
type Signature struct {
	Key    string `json:"key"`    // SHA-256 of the public key, in hex
	Digest Digest `json:"digest"` // that was signed: the image's, or of an index that leads to it
	Name   string `json:"name"`   // the repository for which; "" for any
	// Log names the trusted root of which a transparency log has it; "" where
	// none was looked for.
	Log  string    `json:"log,omitempty"`
	Time time.Time `json:"time"` // when that was verified, UTC
}

// Manifest reads image.json. The error is ErrNotFound when the image has been
// removed.
func (im Image) Manifest() (Manifest, error) {
	var m Manifest
	if err := readJSON(filepath.Join(im.dir, ConfigName), &m); err != nil {
		return Manifest{}, siteError("read image config", im.digest.String(), missing(err))
	}
	return m, nil
}

// Record reads record.json.
func (im Image) Record() (Record, error) {
	var r Record
	if err := readJSON(filepath.Join(im.dir, RecordName), &r); err != nil {
		return Record{}, siteError("read image record", im.digest.String(), err)
	}
	return r, nil
}

// Remember adds reference to the image's record, so that lists can say by
// which names an image is known. It writes only what is new. Two processes
// that remember different names at one instant may lose one of them; names
// are for people, nothing depends on them.
func (im Image) Remember(reference string) error {
	r, err := im.Record()
	if err != nil {
		return err
	}
	if reference == "" || slices.Contains(r.References, reference) {
		return nil
	}
	r.References = append(r.References, reference)
	return im.replaceRecord(r)
}

// RememberSignatures replaces what the image's record says of the keys of s.
func (im Image) RememberSignatures(s []Signature) error {
	r, err := im.Record()
	if err != nil {
		return err
	}
	r.Signatures = slices.DeleteFunc(r.Signatures, func(old Signature) bool {
		return slices.ContainsFunc(s, func(n Signature) bool { return n.Key == old.Key && n.Name == old.Name })
	})
	r.Signatures = append(r.Signatures, s...)
	return im.replaceRecord(r)
}

// openRegular opens a regular file for reading and follows no symbolic link
// in its last component.
func openRegular(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("not a regular file")
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func readJSON(path string, into any) error {
	f, err := openRegular(path)
	if err != nil {
		return err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxJSON+1))
	if err != nil {
		return err
	}
	if len(data) > maxJSON {
		return fmt.Errorf("%s is larger than %d bytes", filepath.Base(path), maxJSON)
	}
	return json.Unmarshal(data, into)
}
