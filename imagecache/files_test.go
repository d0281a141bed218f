package imagecache

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"

	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/imagecache/store"
)

// packings are the forms in which archives lie about, and what makes them.
var packings = map[string]string{"plain": "cat", "gzip": "gzip", "zstd": "zstd", "xz": "xz"}

// packed writes raw through a packer.
func packed(t *testing.T, raw []byte, packer string) string {
	t.Helper()
	if _, err := exec.LookPath(packer); err != nil {
		t.Skip(err)
	}
	out := filepath.Join(t.TempDir(), "archive")
	cmd := exec.CommandContext(t.Context(), "sh", "-c", packer+` -c >"$1"`, "sh", out)
	if packer == "cat" {
		cmd = exec.CommandContext(t.Context(), "sh", "-c", `cat >"$1"`, "sh", out)
	}
	cmd.Stdin = bytes.NewReader(raw)
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", packer, err, text)
	}
	return out
}

// tarDir packs a folder with the system's tar.
func tarDir(t *testing.T, dir string) []byte {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "tar", "-C", dir, "-cf", "-", ".").Output()
	must(t, err)
	return out
}

// incompressible is content that does not compress.
func incompressible(n int) string {
	r := rand.New(rand.NewPCG(3, 4))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return string(b)
}

// manyLayers is an image of more layers than are read out of a compressed
// archive one by one.
func manyLayers(t *testing.T, tag string) v1.Image {
	t.Helper()
	var layers [][]byte
	for i := range spoolLayers + 2 {
		layers = append(layers, tarOf(t, file(fmt.Sprintf("f%d", i), 0o644, incompressible(100_000+i)), file("which", 0o644, fmt.Sprint(tag, i))))
	}
	return imageOf(t, layers...)
}

// pullPath pulls a reference and checks that nothing else is left.
func pullPath(t *testing.T, ref string) store.Image {
	t.Helper()
	s := openStore(t)
	im, err := Pull(testContext(t), s, mustParse(t, ref), FetchOptions{})
	if err != nil {
		t.Fatalf("%s: %v (%s)", ref, err, fault.Remedy(err))
	}
	checkNoLeftovers(t, s.Root())
	return im
}

// TestOCIArchive: an OCI layout in a tar file, in every packing, by its name
// and by its path.
func TestOCIArchive(t *testing.T) {
	dir := t.TempDir()
	p, err := layout.Write(dir, empty.Index)
	must(t, err)
	for _, tag := range []string{"one", "two"} {
		must(t, p.AppendImage(manyLayers(t, tag), layout.WithAnnotations(map[string]string{refName: tag})))
	}
	raw := tarDir(t, dir)
	want, err := manyLayers(t, "two").Digest()
	must(t, err)
	for name, packer := range packings {
		t.Run(name, func(t *testing.T) {
			path := packed(t, raw, packer)
			for _, ref := range []string{"oci-archive:" + path + ":two", "oci-archive:" + path + "@" + want.String()} {
				im := pullPath(t, ref)
				if got := readTree(t, im.Rootfs())["which"]; got != fmt.Sprintf("file 0644 two%d", spoolLayers+1) || im.Digest().String() != want.String() {
					t.Errorf("%s: %v, %q", ref, im.Digest(), got)
				}
			}
			for _, ref := range []string{"oci-archive:" + path, path, "oci-archive:" + path + ":three"} {
				_, err := Resolve(testContext(t), mustParse(t, ref), Platform{}, Network{})
				if fault.Of(err) != fault.User || !strings.Contains(fault.Remedy(err), "one, two") {
					t.Errorf("%s: %v, remedy %q", ref, err, fault.Remedy(err))
				}
			}
		})
	}
}

// savedByDocker writes what Docker saves from version 25.0 on: an OCI layout
// that is a docker save archive, too.
func savedByDocker(t *testing.T) (raw []byte, digest string) {
	t.Helper()
	dir := t.TempDir()
	p, err := layout.Write(dir, empty.Index)
	must(t, err)
	img := manyLayers(t, "docker")
	must(t, p.AppendImage(img, layout.WithAnnotations(map[string]string{fullName: "docker.io/library/tool:1", refName: "1"})))
	m, err := img.Manifest()
	must(t, err)
	entry := archiveEntry{Config: "blobs/sha256/" + m.Config.Digest.Hex, RepoTags: []string{"tool:1"}}
	for _, l := range m.Layers {
		entry.Layers = append(entry.Layers, "blobs/sha256/"+l.Digest.Hex)
	}
	text, err := json.Marshal([]archiveEntry{entry})
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "manifest.json"), text, 0o600))
	d, err := img.Digest()
	must(t, err)
	return tarDir(t, dir), d.String()
}

// TestDockerSave25 reads it as both. By its path it is the layout, which has the
// digest that the registry has.
func TestDockerSave25(t *testing.T) {
	raw, digest := savedByDocker(t)
	for name, packer := range packings {
		t.Run(name, func(t *testing.T) {
			path := packed(t, raw, packer)
			for _, ref := range []string{path, "oci-archive:" + path, "oci-archive:" + path + ":tool:1", "oci-archive:" + path + ":1", "docker-archive:" + path, "docker-archive:" + path + ":tool:1"} {
				im := pullPath(t, ref)
				if got := readTree(t, im.Rootfs())["which"]; got != fmt.Sprintf("file 0644 docker%d", spoolLayers+1) {
					t.Errorf("%s: %q", ref, got)
				}
				if same := im.Digest().String() == digest; same == strings.HasPrefix(ref, "docker-archive:") {
					t.Errorf("%s: digest %v, the registry's is %v", ref, im.Digest(), digest)
				}
			}
		})
	}
}

// TestPackedDockerArchive is the old form, packed, and by its path.
func TestPackedDockerArchive(t *testing.T) {
	raw, err := os.ReadFile(dockerSave(t, false))
	must(t, err)
	for name, packer := range packings {
		t.Run(name, func(t *testing.T) {
			path := packed(t, raw, packer)
			for _, ref := range []string{path, "docker-archive:" + path, "docker-archive:" + path + ":site/tool:1"} {
				if got := readTree(t, pullPath(t, ref).Rootfs())["f"]; got != "file 0644 saved" {
					t.Errorf("%s: %q", ref, got)
				}
			}
		})
	}
}

// writeDockerDir writes what skopeo's dir: writes (containers/image 5.x,
// directory version 1.1).
func writeDockerDir(t *testing.T, img v1.Image) string {
	t.Helper()
	dir := t.TempDir()
	raw, err := img.RawManifest()
	must(t, err)
	config, err := img.RawConfigFile()
	must(t, err)
	writeFile(t, filepath.Join(dir, "version"), []byte("Directory Transport Version: 1.1\n"))
	writeFile(t, filepath.Join(dir, "manifest.json"), raw)
	writeFile(t, filepath.Join(dir, digestOf(config).Hex()), config)
	layers, err := img.Layers()
	must(t, err)
	for _, l := range layers {
		d, err := l.Digest()
		must(t, err)
		stored, err := l.Compressed()
		must(t, err)
		var b bytes.Buffer
		_, err = b.ReadFrom(stored)
		must(t, err)
		writeFile(t, filepath.Join(dir, d.Hex), b.Bytes())
	}
	return dir
}

func TestDockerDir(t *testing.T) {
	img := manyLayers(t, "dir")
	want, err := img.Digest()
	must(t, err)
	dir := writeDockerDir(t, img)
	for _, ref := range []string{"dir:" + dir, dir} {
		im := pullPath(t, ref)
		if got := readTree(t, im.Rootfs())["which"]; !strings.HasPrefix(got, "file 0644 dir") || im.Digest().String() != want.String() {
			t.Errorf("%s: %v, %q", ref, im.Digest(), got)
		}
	}
	_, err = Resolve(testContext(t), mustParse(t, "dir:"+t.TempDir()), Platform{}, Network{})
	if fault.Of(err) != fault.User || !strings.Contains(err.Error(), "not a folder of dir:") {
		t.Errorf("got %v", err)
	}
}

// TestLayoutByPath: a folder that is an OCI layout is not taken for a tree.
func TestLayoutByPath(t *testing.T) {
	img := manyLayers(t, "layout")
	want, err := img.Digest()
	must(t, err)
	if im := pullPath(t, writeLayout(t, img).Path()); im.Digest().String() != want.String() {
		t.Errorf("digest %v, want %v", im.Digest(), want)
	}
}

// TestDamagedPackedArchives cuts and alters archives that are compressed as a
// whole.
func TestDamagedPackedArchives(t *testing.T) {
	plain, _ := savedByDocker(t)
	for name, packer := range packings {
		t.Run(name, func(t *testing.T) {
			raw, err := os.ReadFile(packed(t, plain, packer))
			must(t, err)
			half := len(raw) / 2
			for damage, bad := range map[string][]byte{
				"nothing":  {},
				"the end":  raw[:len(raw)-20_000],
				"the half": raw[:half],
				"a byte":   append(append(bytes.Clone(raw[:half]), raw[half]^0x55), raw[half+1:]...),
			} {
				path := filepath.Join(t.TempDir(), "archive")
				writeFile(t, path, bad)
				for _, form := range []string{"docker-archive:", "oci-archive:"} {
					s := openStore(t)
					_, err := Pull(testContext(t), s, mustParse(t, form+path), FetchOptions{})
					if err == nil || fault.Of(err) != fault.User && fault.Of(err) != fault.Site || fault.Remedy(err) == "" {
						t.Errorf("%s without %s: %v, remedy %q", form, damage, err, fault.Remedy(err))
					}
					if held, err := s.List(); err != nil || len(held) > 0 {
						t.Errorf("%s without %s: %v, %v", form, damage, held, err)
					}
				}
			}
		})
	}
}

// TestCutChecksum: all content is there, but the archive's end is not.
func TestCutChecksum(t *testing.T) {
	raw, err := os.ReadFile(dockerSave(t, false))
	must(t, err)
	raw = gzipped(t, raw)
	path := filepath.Join(t.TempDir(), "archive")
	writeFile(t, path, raw[:len(raw)-4])
	if _, err := Resolve(testContext(t), mustParse(t, path), Platform{}, Network{}); fault.Of(err) != fault.User || !strings.Contains(err.Error(), "unexpected EOF") {
		t.Errorf("got %v", err)
	}
}

// TestSpool: a compressed archive with many layers is copied once, for as long
// as it is fetched.
func TestSpool(t *testing.T) {
	raw, _ := savedByDocker(t)
	path := packed(t, raw, "gzip")
	f, err := openTarFile(testContext(t), path)
	must(t, err)
	dir := t.TempDir()
	must(t, f.spool(testContext(t), dir, spoolLayers))
	if f.plain != "" {
		t.Error("copied for few layers")
	}
	must(t, f.spool(testContext(t), dir, spoolLayers+1))
	if copied, err := os.ReadFile(f.plain); err != nil || !bytes.Equal(copied, raw) {
		t.Errorf("the copy has %d bytes, %v", len(copied), err)
	}
	must(t, f.release())

	ref := mustParse(t, path)
	d, err := Resolve(testContext(t), ref, Platform{}, Network{})
	must(t, err)
	must(t, Fetch(testContext(t), ref, d, dir, FetchOptions{}))
	if left, err := os.ReadDir(dir); err != nil || len(left) != 3 {
		t.Errorf("left %v, %v", left, err)
	}
}

// TestHostileArchives have more in them than memory should hold.
func TestHostileArchives(t *testing.T) {
	many := make([]entry, maxMembers+1)
	for i := range many {
		many[i] = file(fmt.Sprint(i), 0o644, "")
	}
	json := "{" + strings.Repeat(" ", maxConfig-1)
	var texts []entry
	for i := range maxTexts/maxConfig + 1 {
		texts = append(texts, file(fmt.Sprint(i), 0o644, json))
	}
	for name, test := range map[string]struct {
		entries []entry
		says    string
	}{
		"names":     {many, "more than 100000 files"},
		"manifests": {texts, "more than 64 MiB"},
		"config":    {[]entry{file("oci-layout", 0o644, "{}"), file("index.json", 0o644, "{"+strings.Repeat(" ", maxManifest))}, "limits.manifest"},
		"pipe":      {[]entry{fifo("manifest.json")}, "it is not in the archive"},
		"link":      {[]entry{symlink("manifest.json", "/etc/passwd")}, "it is not in the archive"},
		"circle":    {[]entry{symlink("manifest.json", "b"), symlink("b", "manifest.json")}, "it is not in the archive"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "a")
			writeFile(t, path, gzipped(t, tarOf(t, test.entries...)))
			_, err := Resolve(testContext(t), mustParse(t, path), Platform{}, Network{})
			if fault.Of(err) != fault.User || !strings.Contains(err.Error(), test.says) {
				t.Errorf("got %v", err)
			}
		})
	}
}
