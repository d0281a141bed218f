package imagecache

import (
	"errors"
	"fmt"
	"net/netip"
	"path"
	"strconv"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"

	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/imagecache/store"
)

// A Kind says where a reference's image comes from.
type Kind int

const (
	// Registry is an image in a registry.
	Registry Kind = iota
	// OCILayout is a folder in the OCI image layout.
	OCILayout
	// DockerArchive is a tar file made by docker save or podman save,
	// perhaps compressed.
	DockerArchive
	// OCIArchive is a tar file of an OCI layout, perhaps compressed.
	OCIArchive
	// DockerDir is a folder of skopeo's dir: and podman save's docker-dir.
	DockerDir
	// Path is a file or folder that begins with "." or "/": a squashfs or SIF
	// file, a folder with a root file system, or one of the above.
	Path
)

const (
	dockerHub  = "docker.io"
	defaultTag = "latest"
)

// A Reference is what a user typed, taken apart. ParseReference makes it.
type Reference struct {
	kind       Kind
	user       string
	registry   string
	repository string
	tag        string
	digest     store.Digest
	path       string
}

// ParseReference reads an image reference as users of Slurm's container
// options write it:
//
//	[docker://][USER@][REGISTRY#|REGISTRY/]IMAGE[:TAG][@sha256:DIGEST]
//	oci:DIR[:TAG][@sha256:DIGEST]
//	oci-archive:FILE[:TAG][@sha256:DIGEST]
//	docker-archive:FILE[:TAG]
//	dir:DIR
//	./PATH or /PATH
//
// Before a "/", the first part is a registry only if it contains "." or ":"
// or is "localhost". "\#", as written in #SBATCH lines, is read as "#". The
// defaults are docker.io, library/ (there) and latest. Nothing is looked up.
func ParseReference(s string) (Reference, error) {
	ref, err := parse(s)
	if err != nil {
		remedy := "write it as [REGISTRY/]IMAGE[:TAG], for example quay.io/biocontainers/samtools:1.20"
		return Reference{}, fault.Wrap("read image reference", quote(s), fault.User, remedy, err)
	}
	return ref, nil
}

func parse(s string) (Reference, error) {
	switch {
	case s == "":
		return Reference{}, errors.New("it is empty")
	case s[0] == '.' || s[0] == '/':
		return Reference{kind: Path, path: s}, nil
	}
	for kind, prefix := range filePrefixes {
		if rest, ok := strings.CutPrefix(s, prefix); ok {
			return parseFile(kind, rest)
		}
	}
	rest, explicit := strings.CutPrefix(s, "docker://")
	if err := otherScheme(rest); err != nil {
		return Reference{}, err
	}
	ref, err := parseRegistry(rest)
	if err != nil {
		return Reference{}, err
	}
	if !explicit && looksLikeFile(rest) {
		return Reference{}, &fault.Error{
			Op: "read image reference", Arg: quote(s), Blame: fault.User,
			Remedy: fmt.Sprintf("did you mean ./%s? Files are written with ./ or / in front (for an image of that name: docker://%s)", s, s),
			Err:    errors.New("this is read as the name of an image in a registry, not as a file"),
		}
	}
	return ref, nil
}

// filePrefixes are what stands in front of files and folders, the names that
// skopeo and podman have for them.
var filePrefixes = map[Kind]string{
	OCILayout: "oci:", OCIArchive: "oci-archive:", DockerArchive: "docker-archive:", DockerDir: "dir:",
}

// otherScheme refuses what other tools read and Berth does not, with the way
// round.
func otherScheme(s string) error {
	scheme, rest, ok := strings.Cut(s, "://")
	if !ok {
		scheme, rest, _ = strings.Cut(s, ":")
		if scheme != "docker-daemon" && scheme != "containers-storage" {
			return nil
		}
	}
	remedy := "write docker://[REGISTRY/]IMAGE[:TAG]"
	switch scheme {
	case "dockerd", "podman", "docker-daemon", "containers-storage":
		remedy = "save it first (docker save -o x.tar IMAGE, podman save -o x.tar IMAGE), and write docker-archive:x.tar"
	case "http", "https":
		remedy = "for an image in a registry leave out " + scheme + "://; load a file yourself, and write ./FILE"
	case "library", "shub", "oras":
		remedy = "get the file first (apptainer pull x.sif " + oneLine(s) + "), and write ./x.sif"
	case "file":
		remedy = "write the path alone: " + oneLine(rest)
	}
	return &fault.Error{
		Op: "read image reference", Arg: quote(s), Blame: fault.User, Remedy: remedy,
		Err: fmt.Errorf("%s: is not supported", oneLine(scheme)),
	}
}

// parseFile reads PATH[:TAG][@DIGEST]. The path ends at the first colon, as
// with skopeo and podman, since tags of archives may contain slashes.
func parseFile(kind Kind, rest string) (Reference, error) {
	rest, digest, err := cutDigest(rest)
	if err != nil {
		return Reference{}, err
	}
	file, tag, tagged := strings.Cut(rest, ":")
	if file == "" || tagged && tag == "" {
		return Reference{}, errors.New("the path or the tag is missing")
	}
	switch {
	case !digest.IsZero() && kind == DockerArchive:
		return Reference{}, errors.New("docker archives have tags, not digests")
	case kind == DockerDir && (tagged || !digest.IsZero()):
		return Reference{}, errors.New("a folder of dir: holds one image, without tag or digest")
	}
	return Reference{kind: kind, path: file, tag: tag, digest: digest}, nil
}

func parseRegistry(s string) (Reference, error) {
	s = strings.ReplaceAll(s, `\#`, "#")
	s, digest, err := cutDigest(s)
	if err != nil {
		return Reference{}, err
	}
	ref := Reference{kind: Registry, digest: digest}
	if i := strings.LastIndexByte(s, '@'); i >= 0 {
		if ref.user, s = s[:i], s[i+1:]; ref.user == "" {
			return Reference{}, errors.New("the user before @ is empty")
		}
	}
	ref.registry, s = cutRegistry(s)
	if ref.repository, ref.tag, err = cutTag(s); err != nil {
		return Reference{}, err
	}
	ref.applyDefaults()
	return ref, ref.validate()
}

// cutDigest takes "@sha256:…" off the end of s.
func cutDigest(s string) (string, store.Digest, error) {
	i := strings.LastIndexByte(s, '@')
	if i < 0 || !strings.Contains(s[i:], ":") || strings.ContainsAny(s[i:], "/#") {
		return s, store.Digest{}, nil
	}
	algorithm, _, _ := strings.Cut(s[i+1:], ":")
	if number, ok := strings.CutPrefix(algorithm, "sha"); !ok || strings.Trim(number, "0123456789") != "" {
		return s, store.Digest{}, nil // USER@IMAGE:TAG
	}
	d, err := store.ParseDigest(s[i+1:])
	return s[:i], d, err
}

// cutRegistry takes REGISTRY# or REGISTRY/ off the front of s.
func cutRegistry(s string) (registry, rest string) {
	if registry, rest, ok := strings.Cut(s, "#"); ok {
		return registry, rest
	}
	if !HasRegistry(s) {
		return "", s
	}
	registry, rest, _ = strings.Cut(s, "/")
	return registry, rest
}

// HasRegistry says whether a name begins with a host and a slash, as docker sees it.
func HasRegistry(name string) bool {
	first, _, ok := strings.Cut(name, "/")
	return ok && (strings.ContainsAny(first, ".:") || first == "localhost")
}

func cutTag(s string) (repository, tag string, err error) {
	repository, tag, tagged := strings.Cut(s, ":")
	if tagged && tag == "" {
		return "", "", errors.New("the tag after the colon is empty")
	}
	return repository, tag, nil
}

func (r *Reference) applyDefaults() {
	switch r.registry {
	case "", "index.docker.io", "registry-1.docker.io":
		r.registry = dockerHub
	}
	if r.registry == dockerHub && !strings.Contains(r.repository, "/") && r.repository != "" {
		r.repository = "library/" + r.repository
	}
	if r.tag == "" && r.digest.IsZero() {
		r.tag = defaultTag
	}
}

// validate applies the registries' rules to the parts, and says what to do
// about the commonest break of them.
func (r *Reference) validate() error {
	if r.repository == "" {
		return errors.New("the image's name is empty")
	}
	for part := range strings.SplitSeq(r.repository, "/") {
		if part == "" {
			return errors.New("a part of the image's name is empty")
		}
	}
	if !isHost(r.registry) {
		return fmt.Errorf("the registry's name is no host, with or without a port: %s", quote(r.registry))
	}
	if r.repository != strings.ToLower(r.repository) {
		return fmt.Errorf("image names are lower case: %s", oneLine(strings.ToLower(r.repository)))
	}
	// The library guesses again which part is the registry; it is not asked.
	const someHost = "registry.invalid/"
	_, err := name.NewRegistry(r.registry, name.StrictValidation)
	if err == nil {
		_, err = name.NewRepository(someHost+r.repository, name.StrictValidation)
	}
	if err == nil && r.tag != "" {
		_, err = name.NewTag(someHost + r.repository + ":" + r.tag)
	}
	if err != nil {
		return errors.New(oneLine(err.Error()))
	}
	return nil
}

// isHost reports whether s is HOST[:PORT] or [ADDRESS][:PORT]. The library
// takes nearly everything for a registry.
func isHost(s string) bool {
	host, port, withPort := strings.Cut(s, ":")
	if strings.HasPrefix(s, "[") {
		address, rest, _ := strings.Cut(s[1:], "]")
		if _, err := netip.ParseAddr(address); err != nil {
			return false
		}
		host, port, withPort = "address", strings.TrimPrefix(rest, ":"), rest != ""
	}
	if withPort {
		if _, err := strconv.ParseUint(port, 10, 16); err != nil {
			return false
		}
	}
	return host != "" && host[0] != '.' && strings.Trim(host, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") == ""
}

// looksLikeFile reports whether s, given without ./ or a registry, ends like
// an image file. Typing x.sqsh for ./x.sqsh is the commonest beginner's error.
func looksLikeFile(s string) bool {
	if registry, _ := cutRegistry(s); registry != "" {
		return false
	}
	switch path.Ext(s) {
	case ".sqsh", ".sqfs", ".squashfs", ".sif", ".simg":
		return true
	}
	return false
}

// Kind says where the image comes from.
func (r Reference) Kind() Kind { return r.kind }

// User returns the name before "@", by which credentials are chosen, or "".
func (r Reference) User() string { return r.user }

// Host returns the registry's host, with its port if it was given: "docker.io"
// by default; "" for files.
func (r Reference) Host() string { return r.registry }

// Repository returns the image's name within its registry; "" for files.
func (r Reference) Repository() string { return r.repository }

// Tag returns the tag, or "" where a digest or a file needs none.
func (r Reference) Tag() string { return r.tag }

// Name returns the registry and the image's name in it, as String has them; the
// path for files.
func (r Reference) Name() string {
	if r.kind != Registry {
		return r.path
	}
	return r.registry + r.separator() + r.repository
}

// Digest returns the digest that was given, or the zero Digest. It may name
// an index of platforms.
func (r Reference) Digest() store.Digest { return r.digest }

// WithDigest returns the reference to the manifest d where r points, if that is
// a registry; else r.
func (r Reference) WithDigest(d store.Digest) Reference {
	if r.kind == Registry {
		r.digest = d
	}
	return r
}

// Path returns the file or folder; "" for registries.
func (r Reference) Path() string { return r.path }

// String returns the canonical form, with all defaults filled in and without
// the user. ParseReference reads it back.
func (r Reference) String() string {
	var b strings.Builder
	switch r.kind {
	case Registry:
		b.WriteString(r.Name())
	case Path:
		return r.path
	default:
		b.WriteString(filePrefixes[r.kind] + r.path)
	}
	if r.tag != "" {
		b.WriteString(":" + r.tag)
	}
	if !r.digest.IsZero() {
		b.WriteString("@" + r.digest.String())
	}
	return b.String()
}

// separator is what stands between registry and image: "#" where "/" would
// make the registry read as the first part of the image's name.
func (r Reference) separator() string {
	if host, _ := cutRegistry(r.registry + "/"); host == "" {
		return "#"
	}
	return "/"
}

// quote shows what a user typed without letting it write to a terminal.
func quote(s string) string { return fmt.Sprintf("%q", s) }
