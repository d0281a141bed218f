package imagecache

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/sylabs/sif/v2/pkg/sif"

	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/imagecache/store"
)

// writeSIF makes a SIF file as apptainer does, with its own library.
func writeSIF(t testing.TB, squashfs string) string {
	t.Helper()
	f, err := os.Open(squashfs)
	must(t, err)
	defer f.Close()
	text, err := sif.NewDescriptorInput(sif.DataDeffile, strings.NewReader("bootstrap: docker"))
	must(t, err)
	part, err := sif.NewDescriptorInput(sif.DataPartition, f, sif.OptPartitionMetadata(sif.FsSquash, sif.PartPrimSys, "amd64"))
	must(t, err)
	path := filepath.Join(t.TempDir(), "x.sif")
	image, err := sif.CreateContainerAtPath(path, sif.OptCreateWithDescriptors(text, part))
	must(t, err)
	must(t, image.UnloadContainer())
	return path
}

// program is the start of a program for another machine.
func program(machine elf.Machine) []byte {
	b := make([]byte, 64)
	copy(b, "\x7fELF\x02\x01\x01")
	binary.LittleEndian.PutUint16(b[16:], uint16(elf.ET_EXEC))
	binary.LittleEndian.PutUint16(b[18:], uint16(machine))
	return b
}

// enrootTree is a folder as enroot 4.1 makes it out of an image.
func enrootTree(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "rootfs")
	for name, content := range map[string]string{
		"etc/environment": "PATH=/opt/bin:/bin\nWHENCE=from enroot\n",
		"etc/rc": "# maintainer somebody\n\nmkdir -p \"/work\" 2> /dev/null\ncd \"/work\" && unset OLDPWD || exit 1\n\n" +
			"if [ -s /etc/rc.local ]; then\n    . /etc/rc.local\nfi\n\nif [ $# -gt 0 ]; then\n    exec 'tool' \"$@\"\nelse\n    exec 'tool' '--all'\nfi\n",
		"work/f": "content", "bin/a-script": "#!/bin/sh\n",
	} {
		path := filepath.Join(dir, name)
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		must(t, os.WriteFile(path, []byte(content), 0o644))
	}
	for i, m := range []elf.Machine{elf.EM_386, elf.EM_AARCH64, elf.EM_AARCH64} {
		must(t, os.WriteFile(filepath.Join(dir, "bin", string(rune('a'+i))), program(m), 0o755))
	}
	return dir
}

// TestTrees converts a folder, and squashfs and SIF files of it: one image.
func TestTrees(t *testing.T) {
	dir := enrootTree(t)
	squash := mksquashfs(t, dir, "-all-root")
	link := filepath.Join(t.TempDir(), "link")
	must(t, os.Symlink(dir, link))
	digests := map[string]bool{}
	for _, path := range []string{dir, link, squash, mksquashfs(t, dir, "-comp", "lzo", "-noD"), writeSIF(t, squash)} {
		s := openStore(t)
		im, err := Pull(testContext(t), s, mustParse(t, path), FetchOptions{Platform: Platform{"linux", "arm64", ""}})
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		checkNoLeftovers(t, s.Root())
		digests[im.Digest().String()] = true
		if got := readTree(t, im.Rootfs())["work/f"]; got != "file 0644 content" {
			t.Errorf("%s: %q", path, got)
		}
		m, err := im.Manifest()
		must(t, err)
		want := store.Manifest{
			Digest: im.Digest(), OS: "linux", Architecture: "arm64",
			Config: store.Config{
				Env: []string{"PATH=/opt/bin:/bin", "WHENCE=from enroot"}, WorkingDir: "/work",
				Entrypoint: []string{"tool"}, Cmd: []string{"--all"}, Labels: map[string]string{"maintainer": "somebody"},
			},
		}
		if d := cmp.Diff(m, want, cmp.AllowUnexported(store.Digest{})); d != "" {
			t.Errorf("%s: %s", path, d)
		}
	}
	if len(digests) != 1 {
		t.Errorf("one tree is several images: %v", slices.Collect(maps.Keys(digests)))
	}
	_, err := Resolve(testContext(t), mustParse(t, dir), Platform{"linux", "s390x", ""}, Network{})
	must(t, err) // the manifest is not looked into
	_, err = Pull(testContext(t), openStore(t), mustParse(t, dir), FetchOptions{Platform: Platform{"linux", "s390x", ""}})
	if fault.Of(err) != fault.User || !strings.Contains(err.Error(), "the image is for linux/arm64") {
		t.Errorf("got %v", err)
	}
}

// TestSingularityTree: what Apptainer 1.3 writes for a Docker image.
func TestSingularityTree(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "rootfs")
	for name, content := range map[string]string{
		".singularity.d/env/10-docker2singularity.sh": "#!/bin/sh\nexport PATH=\"/usr/local/bin:/bin\"\nexport LANG=\"${LANG:-\"C.UTF-8\"}\"\nexport PRICE=\"${PRICE:-\"5 \\$ \\\"net\\\"\"}\"\n",
		".singularity.d/env/90-environment.sh":        "#!/bin/sh\n# comment\nexport LANG=C\n    export INDENTED=1\nexport LATER=$LANG\n",
		".singularity.d/labels.json":                  `{"org.label-schema.build-arch": "amd64"}`,
		".singularity.d/runscript":                    "#!/bin/sh\nexec tool \"$@\"\n",
		"etc/environment":                             "PATH=/distribution\n",
	} {
		path := filepath.Join(dir, name)
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		must(t, os.WriteFile(path, []byte(content), 0o755))
	}
	for _, path := range []string{dir, writeSIF(t, mksquashfs(t, dir))} {
		m, err := pullPath(t, path).Manifest()
		must(t, err)
		want := store.Config{
			Env:        []string{"PATH=/usr/local/bin:/bin", "LANG=C", `PRICE=5 $ "net"`},
			Entrypoint: []string{"/.singularity.d/runscript"},
			Labels:     map[string]string{"org.label-schema.build-arch": "amd64"},
		}
		if d := cmp.Diff(m.Config, want); d != "" || m.Architecture != HostPlatform().Architecture {
			t.Errorf("%s: %s %s", path, m.Architecture, d)
		}
	}
}

// TestTreeChanges: a folder that changes between its two readings gives no
// image.
func TestTreeChanges(t *testing.T) {
	dir := enrootTree(t)
	ref := mustParse(t, dir)
	src, err := newFolderSource(testContext(t), ref)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "work/f"), []byte("CONTENT"), 0o644))
	work := t.TempDir()
	err = Fetch(testContext(t), ref, src.digest, work, FetchOptions{Platform: Platform{"linux", "arm64", ""}, source: src})
	if fault.Of(err) != fault.User || !strings.Contains(err.Error(), "changed while it was read") {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(filepath.Join(work, store.ConfigName)); err == nil {
		t.Error("there is an image")
	}
	// And a digest that was resolved before means nothing any more.
	err = Fetch(testContext(t), ref, src.digest, t.TempDir(), FetchOptions{Platform: Platform{"linux", "arm64", ""}})
	if fault.Of(err) != fault.User || !strings.Contains(fault.Remedy(err), "may have been changed since") {
		t.Errorf("got %v, %v", err, fault.Remedy(err))
	}
}

// TestNoImageByPath: what is no image says so, and what to do.
func TestNoImageByPath(t *testing.T) {
	dir := t.TempDir()
	good, err := os.ReadFile(mksquashfs(t, enrootTree(t), "-nopad"))
	must(t, err)
	sifHeader := append(make([]byte, 32), "SIF_MAGIC\x00"...)
	for name, test := range map[string]struct {
		content      []byte
		says, remedy string
	}{
		"text":         {[]byte("hello"), "it is no image", "squashfs or SIF"},
		"empty":        {nil, "it is no image", "squashfs or SIF"},
		"cut squashfs": {good[:len(good)/2], "squashfs structure", "damaged or cut off"},
		"cut SIF":      {sifHeader, "SIF header is damaged", ""},
		"a tar":        {tarOf(t, file("x", 0o644, "")), "manifest.json", "docker save"},
		"a gzip":       {gzipped(t, bytes.Repeat([]byte("text"), 1000)), "", "docker save"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(dir, name)
			writeFile(t, path, test.content)
			s := openStore(t)
			_, err := Pull(testContext(t), s, mustParse(t, path), FetchOptions{})
			if fault.Of(err) != fault.User || !strings.Contains(err.Error(), test.says) || !strings.Contains(fault.Remedy(err), test.remedy) {
				t.Errorf("got %v, remedy %q", err, fault.Remedy(err))
			}
			checkNoLeftovers(t, s.Root())
		})
	}
	for path, says := range map[string]string{"/no/such": "no such file", "/dev/null": "neither a file nor a folder"} {
		_, err := Resolve(testContext(t), mustParse(t, path), Platform{}, Network{})
		if fault.Of(err) != fault.User || !strings.Contains(err.Error(), says) || fault.Remedy(err) == "" {
			t.Errorf("%s: %v, %q", path, err, fault.Remedy(err))
		}
	}
}
