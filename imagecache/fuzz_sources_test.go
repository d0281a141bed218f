package imagecache

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"

	"github.com/berth-hpc/berth/fault"
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
	f.Fuzz(func(t *testing.T, s string) {
		ref, err := ParseReference(s)
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
