package imagecache

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"golang.org/x/sys/unix"

	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/imagecache/store"
)

// saveEnv makes the test binary save the image it names, see helperMain.
const saveEnv = "BERTH_TEST_SAVE"

// saveHelper saves ref to where $BERTH_TEST_SAVE says.
func saveHelper(ctx context.Context, ref Reference) error {
	to, err := ParseDestination(os.Getenv(saveEnv))
	if err != nil {
		return err
	}
	im, err := OpenOriginal(ctx, ref, store.Digest{}, Platform{}, Network{})
	if err != nil {
		return err
	}
	return Save(ctx, im, to, "x:latest", killAt(Phase(os.Getenv("BERTH_TEST_KILL"))))
}

// TestSaveAndOpen takes images in every form that their source can have
// through every format, with changes, and looks at what comes out.
func TestSaveAndOpen(t *testing.T) {
	raw := tarOf(t, file("f", 0o644, strings.Repeat("content ", 1000)))
	docker := mutate.MediaType(mutate.ConfigMediaType(imageOfLayers(t, layerOf(gzipped(t, raw), raw, types.DockerLayer)),
		types.DockerConfigJSON), types.DockerManifestSchema2)
	reg := newTestRegistry(t)
	archive := filepath.Join(t.TempDir(), "archive.tar")
	tree := t.TempDir()
	must(t, os.WriteFile(filepath.Join(tree, "f"), []byte("a folder's"), 0o644))
	must(t, tarball.WriteToFile(archive, reg.tag(t, "x:1"), imageOfLayers(t, layerOf(gzipped(t, raw), raw, types.OCILayer))))
	for name, ref := range map[string]Reference{
		"gzip":         reg.push(t, "gzip:1", imageOfLayers(t, layerOf(gzipped(t, raw), raw, types.OCILayer))),
		"zstd":         reg.push(t, "zstd:1", imageOfLayers(t, layerOf(zstded(t, raw), raw, types.OCILayerZStd))),
		"docker":       reg.push(t, "docker:1", docker),
		"plain":        reg.push(t, "plain:1", imageOf(t, raw)),
		"layout":       writeLayout(t, imageOf(t, raw)),
		"index":        reg.pushIndex(t, "index:1", indexOf(t, HostPlatform())),
		"archive":      mustParse(t, "docker-archive:"+archive),
		"plain saved":  mustParse(t, "docker-archive:"+dockerSave(t, false)),
		"folder":       mustParse(t, tree),
		"squashfs":     mustParse(t, convertTars(t, Stream{}, raw)),
		"twice a blob": reg.push(t, "twice:1", imageOf(t, raw, raw)),
	} {
		t.Run(name, func(t *testing.T) {
			original, err := OpenOriginal(testContext(t), ref, store.Digest{}, Platform{}, Network{})
			must(t, err)
			changed, err := AddChanges(testContext(t), original, Changes{Upper: newUpper(t), Temp: t.TempDir()})
			must(t, err)
			defer changed.Close()
			saveEverywhere(t, original)
			saveEverywhere(t, changed)
		})
	}
}

// saveEverywhere saves im in all formats and opens what can be opened again.
func saveEverywhere(t *testing.T, im v1.Image) {
	t.Helper()
	checkImage(t, im)
	want, err := im.Digest()
	must(t, err)
	dir := t.TempDir()
	for _, text := range []string{"oci:" + dir + "/layout:v1", "docker-archive:" + dir + "/d.tar", "oci-archive:" + dir + "/o.tar:v1"} {
		to, err := ParseDestination(text)
		must(t, err)
		must(t, Save(testContext(t), im, to, "name:tag", nil))
	}
	layout := mustParse(t, "oci:"+dir+"/layout:v1")
	again, err := OpenOriginal(testContext(t), layout, store.Digest{}, Platform{}, Network{})
	must(t, err)
	checkImage(t, again)
	if got, _ := again.Digest(); got != want {
		t.Errorf("the layout has %v, want %v", got, want)
	}
	loaded, err := tarball.ImageFromPath(dir+"/d.tar", nil) // as another tool reads it
	must(t, err)
	checkImage(t, loaded)
	sameConfig(t, im, loaded)
	packed, err := OpenOriginal(testContext(t), mustParse(t, "oci-archive:"+dir+"/o.tar:v1"), store.Digest{}, Platform{}, Network{})
	must(t, err)
	checkImage(t, packed)
	if got, _ := packed.Digest(); got != want {
		t.Errorf("the archive has %v, want %v", got, want)
	}
	if left := names(t, dir); strings.Join(left, " ") != "d.tar layout o.tar" {
		t.Errorf("left: %q", left)
	}
}

// checkImage validates an image: go-containerregistry's validation takes only
// layers in gzip, so others are read for their digests.
func checkImage(t *testing.T, im v1.Image) {
	t.Helper()
	layers, err := im.Layers()
	must(t, err)
	options := []validate.Option{}
	for _, l := range layers {
		if kind, err := l.MediaType(); err != nil || kind != types.OCILayer && kind != types.DockerLayer {
			options = []validate.Option{validate.Fast}
		}
		want, err := l.Digest()
		must(t, err)
		body, err := l.Compressed()
		must(t, err)
		got, n, err := v1.SHA256(body)
		must(t, err)
		must(t, body.Close())
		if size, err := l.Size(); err != nil || got != want || n != size {
			t.Errorf("a layer of %d bytes, %v; want %d, %v (%v)", n, got, size, want, err)
		}
	}
	must(t, validate.Image(im, options...))
}

func sameConfig(t *testing.T, a, b v1.Image) {
	t.Helper()
	one, err := a.RawConfigFile()
	must(t, err)
	two, err := b.RawConfigFile()
	must(t, err)
	if string(one) != string(two) {
		t.Errorf("config\n%s\nwant\n%s", two, one)
	}
}

// A layout keeps all but what has the same tag; nothing else is touched.
func TestSaveIntoALayout(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "layout")
	save := func(tag, content string) {
		t.Helper()
		im := imageOf(t, tarOf(t, file("f", 0o644, content)))
		must(t, Save(testContext(t), im, Destination{FormatLayout, dir, tag}, "", nil))
	}
	save("a", "1")
	save("b", "2")
	must(t, os.WriteFile(filepath.Join(dir, "mine"), []byte("x"), 0o644))
	save("a", "3")
	for tag, want := range map[string]string{"a": "3", "b": "2"} {
		im, err := Pull(testContext(t), openStore(t), mustParse(t, "oci:"+dir+":"+tag), FetchOptions{})
		must(t, err)
		if got := readTree(t, im.Rootfs())["f"]; got != "file 0644 "+want {
			t.Errorf("%s: %s", tag, got)
		}
	}
	raw, err := os.ReadFile(filepath.Join(dir, "index.json"))
	must(t, err)
	var index v1.IndexManifest
	must(t, json.Unmarshal(raw, &index))
	if len(index.Manifests) != 2 {
		t.Errorf("index %s", raw)
	}
	if text, err := os.ReadFile(filepath.Join(dir, "mine")); err != nil || string(text) != "x" {
		t.Errorf("%q, %v", text, err)
	}
}

// Many who save into one layout take turns, and none waits longer than it may.
func TestSaveTakesTurns(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "layout")
	im := imageOf(t, tarOf(t, file("f", 0o644, "x")))
	must(t, Save(testContext(t), im, Destination{FormatLayout, dir, "first"}, "", nil))
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			if err := Save(testContext(t), im, Destination{FormatLayout, dir, fmt.Sprintf("v%d", i)}, "", nil); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	raw, err := os.ReadFile(filepath.Join(dir, "index.json"))
	must(t, err)
	var index v1.IndexManifest
	must(t, json.Unmarshal(raw, &index))
	if len(index.Manifests) != 21 {
		t.Errorf("%d tags", len(index.Manifests))
	}
	held, err := os.Open(dir)
	must(t, err)
	defer held.Close()
	must(t, unix.Flock(int(held.Fd()), unix.LOCK_EX))
	ctx, cancel := context.WithTimeout(testContext(t), 100*time.Millisecond)
	defer cancel()
	if err := Save(ctx, im, Destination{FormatLayout, dir, "late"}, "", nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
}

// What a killed process left beside a layout that it made goes with the next
// one; what a living one makes stays.
func TestSaveSweeps(t *testing.T) {
	dir := t.TempDir()
	old := time.Now().Add(-time.Hour)
	for _, name := range []string{".new.berth-dead", ".new.berth-held", ".new.berth-young", ".other.berth-dead"} {
		must(t, os.MkdirAll(filepath.Join(dir, name, "layout/blobs"), 0o755))
		if name != ".new.berth-young" {
			must(t, os.Chtimes(filepath.Join(dir, name), old, old))
		}
	}
	held, err := os.Open(filepath.Join(dir, ".new.berth-held/layout"))
	must(t, err)
	defer held.Close()
	must(t, unix.Flock(int(held.Fd()), unix.LOCK_EX))
	must(t, Save(testContext(t), imageOf(t), Destination{FormatLayout, filepath.Join(dir, "new"), ""}, "", nil))
	if got := strings.Join(names(t, dir), " "); got != ".new.berth-held .new.berth-young .other.berth-dead new" {
		t.Errorf("left: %s", got)
	}
}

func TestSaveRefuses(t *testing.T) {
	dir := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(dir, "folder/sub"), 0o755))
	must(t, os.WriteFile(filepath.Join(dir, "file"), []byte("mine"), 0o644))
	must(t, unix.Mkfifo(filepath.Join(dir, "fifo"), 0o644))
	im := imageOf(t, tarOf(t, file("f", 0o644, "x")))
	for _, test := range []struct{ to, cause string }{
		{"oci:" + dir + "/folder", "is no OCI layout"},
		{"oci:" + dir + "/file", "not a directory"},
		{"oci:" + dir + "/nosuch/layout", "no such file"},
		{"oci-archive:" + dir + "/nosuch/file", "no such file"},
		{"oci-archive:" + dir + "/folder", "no regular file"},
		{"docker-archive:" + dir + "/fifo", "no regular file"},
		{"docker-archive:" + dir + "/file:UPPER//x", "UPPER"},
	} {
		to, err := ParseDestination(test.to)
		must(t, err)
		err = Save(testContext(t), im, to, "x:latest", nil)
		if err == nil || !strings.Contains(err.Error(), test.cause) || fault.Of(err) != fault.User || fault.Remedy(err) == "" {
			t.Errorf("%s: %v (%s)", test.to, err, fault.Remedy(err))
		}
	}
	if got := strings.Join(names(t, dir), " "); got != "fifo file folder" {
		t.Errorf("left: %s", got)
	}
	if text, _ := os.ReadFile(filepath.Join(dir, "file")); string(text) != "mine" {
		t.Errorf("the file is %q", text)
	}
}

func TestParseDestination(t *testing.T) {
	for text, want := range map[string]string{
		"oci:a/b:v1": "oci:a/b:v1", "oci:./a": "oci:a", "oci-archive:x.tar": "oci-archive:x.tar",
		"docker-archive:x.tar:repo/name:tag": "docker-archive:x.tar:repo/name:tag", "x.sqsh": "x.sqsh", "/d/x.squashfs": "/d/x.squashfs",
		"oci:": "", "oci:x:": "", "x": "", "": "", "docker://x": "", "quay.io/x": "",
	} {
		d, err := ParseDestination(text)
		if got := d.String(); err == nil && got != want || (err != nil) != (want == "") {
			t.Errorf("%s: %q, %v", text, got, err)
		}
		if err != nil && (fault.Of(err) != fault.User || fault.Remedy(err) == "") {
			t.Errorf("%s: %v (%s)", text, err, fault.Remedy(err))
		}
	}
}

// bigRef is an image of some megabytes in a registry.
func bigRef(t *testing.T) Reference {
	t.Helper()
	return newTestRegistry(t).pushNoise(t, "big:1", 3<<20, 1)
}

// destinations are one of each format below dir, over what is there already.
func destinations(t *testing.T, dir string) []Destination {
	t.Helper()
	must(t, os.WriteFile(filepath.Join(dir, "old.tar"), []byte("old"), 0o644))
	return []Destination{
		{FormatLayout, filepath.Join(dir, "new"), "v1"},
		{FormatOCIArchive, filepath.Join(dir, "old.tar"), ""},
		{FormatDockerArchive, filepath.Join(dir, "old.tar"), ""},
	}
}

// checkUntouched finds only what was there before.
func checkUntouched(t *testing.T, dir string) {
	t.Helper()
	if got := strings.Join(names(t, dir), " "); got != "old.tar" {
		t.Errorf("left: %s", got)
	}
	if text, _ := os.ReadFile(filepath.Join(dir, "old.tar")); string(text) != "old" {
		t.Errorf("what was there became %.10q", text)
	}
}

func TestSaveInterrupted(t *testing.T) {
	ref := bigRef(t)
	dir := t.TempDir()
	for _, to := range destinations(t, dir) {
		ctx, cancel := context.WithCancelCause(testContext(t))
		cause := errors.New("enough")
		im, err := OpenOriginal(ctx, ref, store.Digest{}, Platform{}, Network{})
		must(t, err)
		err = Save(ctx, im, to, "x:latest", func(Progress) { cancel(cause) })
		if !errors.Is(err, cause) {
			t.Errorf("%v: %v", to, err)
		}
		checkUntouched(t, dir)
	}
}

func TestSaveKilled(t *testing.T) {
	ref := bigRef(t)
	h := newHelper(t, nobodyID)
	for _, to := range destinations(t, h.dir) {
		cmd := h.command(testContext(t), ref, saveEnv+"="+to.String(), "BERTH_TEST_KILL="+string(PhaseSave))
		err := cmd.Run()
		if cmd.ProcessState.Sys() == nil || err == nil || !strings.Contains(err.Error(), "killed") {
			t.Fatalf("%v: %v", to, err)
		}
		if to.Format == FormatLayout { // a folder cannot be without a name
			for _, name := range names(t, h.dir) {
				if strings.HasPrefix(name, ".new.berth-") {
					must(t, os.RemoveAll(filepath.Join(h.dir, name)))
				}
			}
		}
		checkUntouched(t, h.dir)
	}
}

func TestSaveToAFullDisk(t *testing.T) {
	ref := bigRef(t)
	dir := filepath.Dir(smallStore(t, 1<<20).Root())
	must(t, os.RemoveAll(filepath.Join(dir, "store")))
	for _, to := range destinations(t, dir) {
		im, err := OpenOriginal(testContext(t), ref, store.Digest{}, Platform{}, Network{})
		must(t, err)
		err = Save(testContext(t), im, to, "x:latest", nil)
		if !errors.Is(err, unix.ENOSPC) || fault.Of(err) != fault.Site || !strings.Contains(fault.Remedy(err), "make room") {
			t.Errorf("%v: %v (%s)", to, err, fault.Remedy(err))
		}
		checkUntouched(t, dir)
	}
	image, err := Pull(testContext(t), openStore(t), ref, FetchOptions{})
	must(t, err)
	tree, err := image.Open()
	must(t, err)
	defer tree.Close()
	for _, c := range []*Changes{nil, {Upper: newUpper(t)}} {
		err = SaveSquashfs(testContext(t), tree, c, store.Config{}, filepath.Join(dir, "old.tar"), Limits{}, nil)
		if !errors.Is(err, unix.ENOSPC) || fault.Of(err) != fault.Site {
			t.Errorf("squashfs: %v", err)
		}
		checkUntouched(t, dir)
	}
}

// Where files cannot be without a name, they have one that is removed.
func TestSaveWithoutUnnamedFiles(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: mounts")
	}
	dir := t.TempDir()
	must(t, unix.Mount("test", dir, "ramfs", 0, ""))
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	to := destinations(t, dir)[1]
	ctx, cancel := context.WithCancel(testContext(t))
	im, err := OpenOriginal(ctx, bigRef(t), store.Digest{}, Platform{}, Network{})
	must(t, err)
	if err := Save(ctx, im, to, "", func(Progress) { cancel() }); err == nil {
		t.Error("no error")
	}
	checkUntouched(t, dir)
	must(t, Save(testContext(t), imageOf(t), to, "", nil))
	if got := strings.Join(names(t, dir), " "); got != "old.tar" {
		t.Errorf("left: %s", got)
	}
}

// The tree of an image with changes, as a squashfs file.
func TestSaveSquashfs(t *testing.T) {
	ref := writeLayout(t, imageOf(t, hardImage(t)...))
	image, err := Pull(testContext(t), openStore(t), ref, FetchOptions{})
	must(t, err)
	tree, err := image.Open()
	must(t, err)
	defer tree.Close()
	upper := newUpper(t)
	out := filepath.Join(t.TempDir(), "x.sqsh")
	config := store.Config{Env: []string{"A=b"}, WorkingDir: "/w", Entrypoint: []string{"e"}, Cmd: []string{"c"}, Labels: map[string]string{"l": "v"}}
	must(t, SaveSquashfs(testContext(t), tree, &Changes{Upper: upper}, config, out, Limits{}, nil))
	checkStructure(t, out)
	if got, err := TreeConfig(out); err != nil || !reflect.DeepEqual(got, config) {
		t.Errorf("the config is %+v, %v", got, err)
	}

	original, err := OpenOriginal(testContext(t), ref, store.Digest{}, Platform{}, Network{})
	must(t, err)
	changed, err := AddChanges(testContext(t), original, Changes{Upper: upper, Temp: t.TempDir()})
	must(t, err)
	defer changed.Close()
	dest := Destination{FormatLayout, filepath.Join(t.TempDir(), "l"), ""}
	must(t, Save(testContext(t), changed, dest, "", nil))
	want, err := Pull(testContext(t), openStore(t), mustParse(t, dest.String()), FetchOptions{Converter: Umoci{}})
	must(t, err)
	got, expect := readTree(t, out), readTree(t, want.Rootfs())
	for name := range expect {
		if got[name] != expect[name] {
			t.Errorf("%q: %.80q, want %.80q", name, got[name], expect[name])
		}
	}
	if len(got) != len(expect) {
		t.Errorf("%d files, want %d", len(got), len(expect))
	}
	must(t, SaveSquashfs(testContext(t), tree, nil, config, out, Limits{}, nil))
	saved, err := os.ReadFile(out)
	must(t, err)
	own, err := os.ReadFile(image.Rootfs())
	must(t, err)
	if !bytes.HasPrefix(saved, own) {
		t.Error("an image's own tree is other bytes")
	}
}

// Mount points are left out of changes, unless they have content, and the tree
// below them may be a folder.
func TestSaveWithMountPoints(t *testing.T) {
	base, upper := t.TempDir(), t.TempDir()
	must(t, os.WriteFile(filepath.Join(base, "old"), []byte("old"), 0o644))
	for _, dir := range []string{"made/point", "made/other", "kept"} {
		must(t, os.MkdirAll(filepath.Join(upper, dir), 0o755))
	}
	for name, text := range map[string]string{"made/file": "", "made/text": "text", "made/other/file": "x", "new": ""} {
		must(t, os.WriteFile(filepath.Join(upper, name), []byte(text), 0o644))
	}
	tree, err := os.Open(base)
	must(t, err)
	defer tree.Close()
	out := filepath.Join(t.TempDir(), "x.sqsh")
	skip := []string{"made/point", "made/file", "made/text", "made/other", "none"}
	must(t, SaveSquashfs(testContext(t), tree, &Changes{Upper: upper, Skip: skip}, store.Config{}, out, Limits{}, nil))
	checkStructure(t, out)
	got := readTree(t, out)
	for name, want := range map[string]bool{
		"old": true, "kept": true, "new": true, "made": true, "made/text": true, "made/other/file": true, "made/point": false, "made/file": false,
	} {
		if _, ok := got[name]; ok != want {
			t.Errorf("%s is there: %v; of %v", name, ok, got)
		}
	}
	must(t, SaveSquashfs(testContext(t), tree, nil, store.Config{}, out, Limits{}, nil))
	if got := readTree(t, out); len(got) != 2 { // and the root
		t.Errorf("the folder alone: %v", got)
	}
}

// What is saved is read by skopeo, as by podman, in all formats.
func TestSkopeoReadsWhatIsSaved(t *testing.T) {
	skopeo, err := exec.LookPath("skopeo")
	if err != nil {
		t.Skip("needs skopeo")
	}
	changed, err := AddChanges(testContext(t), gzipImage(t), Changes{Upper: newUpper(t), Temp: t.TempDir()})
	must(t, err)
	defer changed.Close()
	dir := t.TempDir()
	for _, text := range []string{"oci:" + dir + "/layout:v1", "oci-archive:" + dir + "/o.tar:v1", "docker-archive:" + dir + "/d.tar:my/name:v1"} {
		to, err := ParseDestination(text)
		must(t, err)
		must(t, Save(testContext(t), changed, to, "x:latest", nil))
		cmd := exec.CommandContext(testContext(t), skopeo, "copy", "--quiet", "--insecure-policy", text, "oci:"+dir+"/copy:"+string(to.Format))
		cmd.Env = append(os.Environ(), "HOME="+dir)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v: %s", text, err, out)
			continue
		}
		copied, err := OpenOriginal(testContext(t), mustParse(t, "oci:"+dir+"/copy:"+string(to.Format)), store.Digest{}, Platform{}, Network{})
		must(t, err)
		sameLayers(t, changed, copied)
	}
}

func sameLayers(t *testing.T, a, b v1.Image) {
	t.Helper()
	one, err := a.ConfigFile()
	must(t, err)
	two, err := b.ConfigFile()
	must(t, err)
	if !slices.Equal(one.RootFS.DiffIDs, two.RootFS.DiffIDs) {
		t.Errorf("layers %v, want %v", two.RootFS.DiffIDs, one.RootFS.DiffIDs)
	}
}
