package imagefile

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/sylabs/sif/v2/pkg/sif"
)

// rc is what enroot 4.1 writes, with these lines in it.
func rc(labels, workdir, run, otherwise string) string {
	return labels + "mkdir -p \"" + workdir + "\" 2> /dev/null\ncd \"" + workdir + "\" && unset OLDPWD || exit 1\n\n" +
		"if [ -s /etc/rc.local ]; then\n    . /etc/rc.local\nfi\n\nif [ $# -gt 0 ]; then\n    exec " + run + "\nelse\n    exec " + otherwise + "\nfi\n"
}

func TestReadConfig(t *testing.T) {
	for _, test := range []struct {
		name  string
		files map[string]string
		want  Config
	}{
		{"nothing", nil, Config{}},
		{"a distribution's environment", map[string]string{
			"etc/environment": "# comment\nPATH=\"/bin:/sbin\"\nexport A='b c'\n=x\nno value\n1A=x\nE=\n",
		}, Config{Env: []string{"PATH=/bin:/sbin", "A=b c", "E="}}},
		{"enroot", map[string]string{
			"etc/environment": "PATH=/bin\nA=b=c \"d\" e\nPATH=/last\n",
			"etc/rc":          rc("# a.b c d\n# e\n\n", "/work dir", `'entry' 'it'\''s' "$@"`, `'entry' 'it'\''s' 'a b' ''`),
		}, Config{
			Env: []string{"PATH=/last", `A=b=c "d" e`}, WorkingDir: "/work dir",
			Entrypoint: []string{"entry", "it's"}, Cmd: []string{"a b", ""}, Labels: map[string]string{"a.b": "c d"},
		}},
		{
			"enroot without an entry point",
			map[string]string{"etc/rc": rc("", "/", ` "$@"`, ` '/bin/sh'`)},
			Config{WorkingDir: "/", Entrypoint: nil, Cmd: []string{"/bin/sh"}},
		},
		{
			"enroot's script, changed by the user",
			map[string]string{"etc/rc": rc("", "/", `"$@"`, `$SHELL -l`)},
			Config{WorkingDir: "/", Entrypoint: []string{"/bin/sh", "/etc/rc"}},
		},
		{"somebody else's script", map[string]string{"etc/rc": "#!/bin/sh\n# start all\ncd /\nexec /sbin/init\n"}, Config{}},
		{"singularity", map[string]string{
			".singularity.d/runscript":                    "#!/bin/sh\nexec x\n",
			".singularity.d/env/10-docker2singularity.sh": "export A=\"${A:-\"x \\\\ y\"}\"\nexport B=\"$A\"\nexport C=`id`\nexport D=plain\nexport E='$x'\nexport F\n",
			".singularity.d/labels.json":                  `{"a":"b"}`,
		}, Config{Env: []string{`A=x \ y`, "D=plain", "E=$x"}, Entrypoint: []string{"/.singularity.d/runscript"}, Labels: map[string]string{"a": "b"}}},
		{"singularity without a runscript", map[string]string{".singularity.d/runscript": "\n", ".singularity.d/labels.json": "no JSON"}, Config{}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := ReadConfig(filesOf(test.files)); !reflect.DeepEqual(got, test.want) {
				t.Errorf("got  %#v\nwant %#v", got, test.want)
			}
		})
	}
}

func filesOf(files map[string]string) ReadFile {
	return func(name string) ([]byte, error) {
		if text, ok := files[name]; ok {
			return []byte(text), nil
		}
		return nil, fs.ErrNotExist
	}
}

func TestIdentify(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("text", "hello")
	write("empty", "")
	write("x.sqsh", "hsqs and more")
	write("x.sif", strings.Repeat(" ", 32)+"SIF_MAGIC\x00")
	write("x.tar", strings.Repeat("\x00", 257)+"ustar")
	write("x.gz", "\x1f\x8b\x08")
	write("x.zst", "\x28\xb5\x2f\xfd")
	write("x.xz", "\xfd7zXZ\x00")
	write("tree/bin/sh", "")
	write("oci/oci-layout", "{}")
	write("oci/index.json", "{}")
	write("half/oci-layout", "{}")
	write("dir/version", "Directory Transport Version: 1.1\n")
	write("dir/manifest.json", "{}")
	write("sources/version", "1.0")
	write("sources/manifest.json", "{}")
	if err := os.Symlink("tree", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]Kind{
		"text": Unknown, "empty": Unknown, "x.sqsh": Squashfs, "x.sif": SIF, "x.tar": Archive, "x.gz": Archive, "x.zst": Archive, "x.xz": Archive,
		"tree": Tree, "link": Tree, "oci": OCILayout, "half": Tree, "dir": DockerDir, "sources": Tree,
	} {
		if got, err := Identify(filepath.Join(dir, name)); got != want || err != nil {
			t.Errorf("%s: %v, %v, want %v", name, got, err, want)
		}
	}
	for _, name := range []string{filepath.Join(dir, "none"), "/dev/null"} {
		if _, err := Identify(name); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// sifFile is a file with a squashfs that is nothing but its mark.
func sifFile(t testing.TB) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "x.sif")
	part, err := sif.NewDescriptorInput(sif.DataPartition, strings.NewReader("hsqs"), sif.OptPartitionMetadata(sif.FsSquash, sif.PartPrimSys, "amd64"))
	if err != nil {
		t.Fatal(err)
	}
	f, err := sif.CreateContainerAtPath(path, sif.OptCreateWithDescriptors(part))
	if err != nil {
		t.Fatal(err)
	}
	if err := f.UnloadContainer(); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// FuzzFindSquashfs: what is found is a squashfs, or there is an error.
func FuzzFindSquashfs(f *testing.F) {
	raw := sifFile(f)
	f.Add(raw)
	f.Add(raw[:200])
	f.Add([]byte("hsqs"))
	f.Add([]byte("\x1f\x8b"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		offset, err := FindSquashfs(bytes.NewReader(raw))
		if err == nil && (offset < 0 || offset > int64(len(raw)) || !bytes.HasPrefix(raw[offset:], squashfsMagic)) {
			t.Errorf("found at %d", offset)
		}
	})
}

// FuzzReadConfig: whatever a tree holds, variables have names, and nothing
// takes more than it is given.
func FuzzReadConfig(f *testing.F) {
	f.Add("A=b\n", rc("# a b\n", "/", `'x' "$@"`, `'x' 'y'`), "", "", "")
	f.Add("", "", "#!/bin/sh", "export A=\"${A:-\"b\"}\"\n", `{"a":"b"}`)
	f.Fuzz(func(t *testing.T, environment, rc, runscript, exports, labels string) {
		files := map[string]string{enrootEnvironment: environment, enrootScript: rc}
		if runscript != "" {
			files[singularityRunscript], files[singularityEnvironment[0]], files[singularityLabels] = runscript, exports, labels
		}
		c := ReadConfig(filesOf(files))
		for _, v := range c.Env {
			if name, _, ok := strings.Cut(v, "="); !ok || !validName(name) || strings.Contains(v, "\n") {
				t.Errorf("variable %q", v)
			}
		}
	})
}
