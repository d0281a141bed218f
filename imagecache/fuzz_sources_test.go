package imagecache

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"

	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/testdata/checker"
)

// FuzzParseReference: what is taken is read back the same from its canonical
// form, and all else is the user's mistake, said without control characters.
func FuzzParseReference(f *testing.F) {
	for _, s := range []string{
		"debian", "me@quay.io#a/b:1@" + testDigest, `nvcr.io\#nvidia/pytorch:24.01`, "localhost/x", "h:1/a", "oci:d:t@" + testDigest,
		"docker-archive:a.tar:b/c:1", "oci-archive:f", "dir:/a", "./x", "/x", "docker://a", "podman://x", "x.sqsh", "a\x1b", "registry#x",
	} {
		f.Add(s)
	}
	for _, s := range []string{"[::1]:5000/a", "[::1/a", "[::1]5000/a", "[fe80::1%x]/a", "a/b:c/d", "h:5000/a/b:1@" + testDigest, "a@b/c", "A/b", "a.b", "a..b/c", "docker.io/a", "-a.b/c"} {
		f.Add(s)
	}
	plugin := checker.New(f, "image")
	f.Fuzz(func(t *testing.T, s string) {
		ref, err := ParseReference(s)
		compareDocker(t, s, ref, err)
		if err == nil && (ref.Kind() == Registry || ref.Kind() == Path) && !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			if refused := plugin.Refuses(t, s); refused != "" {
				t.Errorf("%q: the plugin says %s", s, refused)
			}
		}
		if err != nil {
			if fault.Of(err) != fault.User || fault.Remedy(err) == "" || strings.ContainsAny(err.Error()+fault.Remedy(err), "\x1b\n") {
				t.Errorf("%q: %q, %q", s, err, fault.Remedy(err))
			}
			return
		}
		canonical := ref.String()
		if ref.Kind() == Registry && looksLikeFile(ref.Repository()) {
			return // written without docker://, which the canonical form leaves out
		}
		again, err := ParseReference(canonical)
		again.user = ref.user
		if err != nil || again != ref {
			t.Errorf("%q: %+v, read back from %q: %+v, %v", s, ref, canonical, again, err)
		}
	})
}

// compareDocker: what is written as docker wants it means what it means there, to
// go-containerregistry's reader of it.
func compareDocker(t *testing.T, s string, ref Reference, err error) {
	t.Helper()
	if err != nil || ref.Kind() != Registry || ref.User() != "" || strings.Contains(s, "#") {
		return
	}
	theirs, err := name.ParseReference(strings.TrimPrefix(s, "docker://"))
	if err != nil {
		t.Errorf("%q is %v, and docker's reader says %v", s, ref, err)
		return
	}
	registry, tag := theirs.Context().RegistryStr(), ""
	if registry == name.DefaultRegistry || registry == "registry-1.docker.io" {
		registry = dockerHub
	}
	repository := theirs.Context().RepositoryStr()
	if registry == dockerHub && !strings.Contains(repository, "/") {
		repository = "library/" + repository
	}
	if named, ok := theirs.(name.Tag); ok {
		tag = named.TagStr()
	} else if theirs.Identifier() != ref.Digest().String() {
		t.Errorf("%q has the digest %v, and docker's reader says %v", s, ref.Digest(), theirs.Identifier())
	}
	if ref.Host() != registry || ref.Repository() != repository || tag != "" && ref.Tag() != tag {
		t.Errorf("%q is %v, and docker's reader says %v", s, ref, theirs)
	}
}

// FuzzPlatform and FuzzDestination: what is read is printed so that it is read as
// the same.
func FuzzPlatform(f *testing.F) {
	for _, s := range []string{"", "arm64", "x86_64", "armhf", "linux/arm/v6", "linux/arm64/v8", "arm/v7", "386/arm", "windows/amd64", "a/b/c/d", "/"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := ParsePlatform(s)
		if err != nil {
			return
		}
		if again, err := ParsePlatform(p.String()); err != nil || again != p {
			t.Errorf("%q is %v, and that is %v, %v", s, p, again, err)
		}
	})
}

// FuzzDestination: see FuzzPlatform.
func FuzzDestination(f *testing.F) {
	for _, s := range []string{"x.sqsh", "oci:d:t", "oci-archive:./f.tar", "docker-archive:f:a/b:1", "docker://a", "oci:x.sqsh", "oci:", "oci:a:"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d, err := ParseDestination(s)
		if err != nil {
			return
		}
		if again, err := ParseDestination(d.String()); err != nil || again != d || d.Path == "" {
			t.Errorf("%q is %+v, and that is %+v, %v", s, d, again, err)
		}
	})
}

// FuzzArchive: an archive is resolved, or it is to blame.
func FuzzArchive(f *testing.F) {
	seed := func(path string) []byte {
		raw, err := os.ReadFile(path)
		must(f, err)
		return raw
	}
	docker := tarOf(f, file("manifest.json", 0o644, `[{"Config":"c.json","RepoTags":["a:1"],"Layers":["l"]}]`),
		file("c.json", 0o644, `{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":["`+testDigest+`"]}}`), symlink("l", "m"), file("m", 0o644, ""))
	f.Add(docker)
	f.Add(docker[:700])
	dir := f.TempDir()
	p, err := layout.Write(dir, empty.Index)
	must(f, err)
	_ = p
	f.Add(tarOf(f, file("oci-layout", 0o644, string(seed(filepath.Join(dir, "oci-layout")))),
		file("index.json", 0o644, `{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"`+testDigest+`","size":2,"annotations":{"org.opencontainers.image.ref.name":"v1"}}]}`)))
	f.Add([]byte("\x1f\x8b\x08\x00\x00\x00\x00\x00"))
	f.Add([]byte("\x28\xb5\x2f\xfd\x00"))
	f.Add([]byte("\xfd7zXZ\x00\x00"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		path := filepath.Join(t.TempDir(), "a")
		writeFile(t, path, raw)
		for _, form := range []string{"docker-archive:", "oci-archive:"} {
			_, err := Resolve(t.Context(), mustParse(t, form+path), Platform{}, Network{})
			if err != nil && (fault.Of(err) == fault.Bug || fault.Remedy(err) == "") {
				t.Errorf("%v, remedy %q", err, fault.Remedy(err))
			}
		}
	})
}

// FuzzLayoutIndex: an OCI layout's index names an image, or is to blame.
func FuzzLayoutIndex(f *testing.F) {
	f.Add([]byte(`{"schemaVersion":2,"manifests":[{"digest":"`+testDigest+`","platform":{"os":"linux","architecture":"arm64"}}]}`), "", "arm64")
	f.Add([]byte(`{"manifests":[{"mediaType":"application/vnd.oci.image.index.v1+json","digest":"`+testDigest+`"}]}`), "v1", "linux/arm/v7")
	f.Add([]byte(`{"manifests":null}`), "", "")
	f.Fuzz(func(t *testing.T, index []byte, tag, platform string) {
		dir := t.TempDir()
		writeFile(t, filepath.Join(dir, "oci-layout"), []byte("{}"))
		writeFile(t, filepath.Join(dir, "index.json"), index)
		p, err := ParsePlatform(platform)
		if err != nil {
			return
		}
		_, err = Resolve(t.Context(), Reference{kind: OCILayout, path: dir, tag: tag}, p, Network{})
		if err != nil && (fault.Of(err) == fault.Bug || fault.Remedy(err) == "") {
			t.Errorf("%v, remedy %q", err, fault.Remedy(err))
		}
	})
}
