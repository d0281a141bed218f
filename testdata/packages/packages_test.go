package packages

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// made is where the packages are.
var made string

// build makes them, once for all tests of the process.
var build = sync.OnceValue(func() error {
	out, err := makePackages(made)
	if err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	return nil
})

func TestMain(m *testing.M) {
	var err error
	if made, err = os.MkdirTemp("", "berth-packages-"); err != nil {
		panic(err)
	}
	code := m.Run()
	os.RemoveAll(made)
	os.Exit(code)
}

// makePackages returns what the build says.
func makePackages(dir string) (out string, err error) {
	cmd := exec.Command("../../packaging/build", dir, "v1.2.0-rc1-5-gabcdef0", "/usr/include")
	cmd.Env = append(os.Environ(), "SOURCE_DATE_EPOCH=1700000000")
	text, err := cmd.CombinedOutput()
	return string(text), err
}

// built returns the folder with the packages.
func built(t *testing.T) string {
	t.Helper()
	for _, program := range []string{"rpm", "dpkg-deb", "strip", "objdump"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("no %s here (tools/deps)", program)
		}
	}
	if err := build(); err != nil {
		t.Fatalf("packaging/build: %v", err)
	}
	return made
}

// output is what a command prints; the test ends if it fails.
func output(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// one is the only file that matches.
func one(t *testing.T, pattern string) string {
	t.Helper()
	found, err := filepath.Glob(pattern)
	if err != nil || len(found) != 1 {
		t.Fatalf("%s: %q, %v", pattern, found, err)
	}
	return found[0]
}

// unpacked are the files of a deb.
func unpacked(t *testing.T, name string) string {
	t.Helper()
	dir := t.TempDir()
	output(t, "dpkg-deb", "-x", one(t, filepath.Join(built(t), name+"_*.deb")), dir)
	return dir
}

// The same sources give the same bytes, wherever they are built.
func TestReproducible(t *testing.T) {
	first := built(t)
	second := t.TempDir()
	if out, err := makePackages(second); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	want, err := os.ReadFile(filepath.Join(first, "SHA256SUMS"))
	if err != nil || strings.Count(string(want), "\n") != 6 {
		t.Fatalf("%s, %v", want, err)
	}
	got, err := os.ReadFile(filepath.Join(second, "SHA256SUMS"))
	if err != nil || string(got) != string(want) {
		t.Errorf("built again:\n%s%v\nfirst:\n%s", got, err, want)
	}
	cmd := exec.Command("sha256sum", "--check", "--quiet", "SHA256SUMS")
	cmd.Dir = first
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("SHA256SUMS: %v\n%s", err, out)
	}
}

// What git says becomes a version that deb and rpm order as the commits are.
func TestVersions(t *testing.T) {
	order := []string{"abcdef0", "v1.2.0-rc1", "v1.2.0-rc1-5-gabcdef0", "v1.2.0-rc2", "v1.2.0", "v1.2.0-5-gabcdef0", "v1.2.0-10-gabcdef0", "v1.2.1", "v1.10.0-dirty"}
	last := ""
	for _, described := range order {
		version := strings.TrimSpace(output(t, "../../packaging/version", described, "1700000000"))
		if last != "" {
			output(t, "dpkg", "--compare-versions", last, "lt", version)
			if got := output(t, "rpm", "--eval", "%{lua:print(rpm.vercmp('"+last+"', '"+version+"'))}"); strings.TrimSpace(got) != "-1" {
				t.Errorf("rpm orders %s and %s as %s", last, version, got)
			}
		}
		last = version
	}
}

// Every page is one that man, whatis and mandoc take, and every command has one.
func TestManualPages(t *testing.T) {
	dir := unpacked(t, "berth")
	pages, err := filepath.Glob(filepath.Join(dir, "usr/share/man/man[15]/*.gz"))
	if err != nil || len(pages) < 25 {
		t.Fatalf("%d pages, %v", len(pages), err)
	}
	for _, page := range pages {
		output(t, "gunzip", page)
		page = strings.TrimSuffix(page, ".gz")
		if out, err := exec.Command("mandoc", "-Tlint", "-Wwarning", page).CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("mandoc: %v\n%s", err, out)
		}
		if out := output(t, "lexgrog", page); !strings.Contains(out, " - ") {
			t.Errorf("lexgrog: %s", out)
		}
		cmd := exec.Command("man", "--warnings", "-E", "UTF-8", "-l", page)
		cmd.Env = append(os.Environ(), "MANPAGER=cat", "MANWIDTH=80", "LC_ALL=C.UTF-8")
		var said strings.Builder
		cmd.Stderr = &said
		if out, err := cmd.Output(); err != nil || said.Len() > 0 || len(out) < 200 {
			t.Errorf("man %s: %v\n%s%s", page, err, said.String(), out)
		}
	}
	settings, err := os.ReadFile(filepath.Join(dir, "usr/share/man/man5/berth.toml.5"))
	if err != nil || !strings.Contains(string(settings), `\fBstore.quota\fR`) {
		t.Errorf("berth.toml(5): %v", err)
	}
}

// zsh and fish complete from what is installed; bash is tested on a machine of a
// cluster, with a store.
func TestShells(t *testing.T) {
	dir := unpacked(t, "berth")
	t.Setenv("PATH", filepath.Join(dir, "usr/bin")+":"+os.Getenv("PATH"))
	t.Setenv("HOME", dir)
	for _, tc := range []struct{ shell, script, want string }{
		{"fish", "source " + dir + "/usr/share/fish/vendor_completions.d/berth.fish; complete -C 'berth run --hos'", "--host-mpi\tUse the host's MPI"},
		{"fish", "source " + dir + "/usr/share/fish/vendor_completions.d/berth.fish; complete -C 'berth config te'", "template\tPrint a berth.toml"},
		{"zsh", zsh(dir, "run", "--hos"), "--host-mpi:Use the host's MPI"},
		{"zsh", zsh(dir, "config", "te"), "template:Print a berth.toml"},
		{"zsh", zsh(dir, "run", "x", "sh", "fi"), "files"},
	} {
		if _, err := exec.LookPath(tc.shell); err != nil {
			t.Errorf("no %s (tools/deps)", tc.shell)
			continue
		}
		if got := output(t, tc.shell, "-c", tc.script); !strings.HasPrefix(got, tc.want) || strings.Count(got, "\n") != 1 {
			t.Errorf("%s, %s: %q", tc.shell, tc.script, got)
		}
	}
}

// zsh completes words, and prints what it would offer.
func zsh(dir string, words ...string) string {
	return fmt.Sprintf(`compdef() {}; _describe() { print -l -- "${(@P)2}" }; _files() { print files }
source %s/usr/share/zsh/site-functions/_berth; words=(berth %s); CURRENT=%d; _berth`, dir, strings.Join(words, " "), len(words)+1)
}

// The licences of what is linked in come with it.
func TestCopyright(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(unpacked(t, "berth"), "usr/share/doc/berth/copyright"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"Of the Go standard library", "Of github.com/alecthomas/kong v", "Of github.com/opencontainers/runc v", "Apache License", "Permission is hereby granted"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("no %q", want)
		}
	}
}

// The rpms have the same files as the debs, and rpm takes them.
func TestRPM(t *testing.T) {
	for _, name := range []string{"berth", "berth-slurm-22.05", "berth-pbs"} {
		rpm := one(t, filepath.Join(built(t), name+"-1.2.0*.rpm"))
		dir := unpacked(t, name)
		for _, file := range strings.Fields(output(t, "rpm", "-qlp", rpm)) {
			if _, err := os.Lstat(filepath.Join(dir, file)); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		want := strings.TrimSpace(output(t, "sh", "-c", "find "+dir+" ! -type d | wc -l"))
		if got := strings.TrimSpace(output(t, "sh", "-c", "rpm -qp --qf '[%{FILEMODES:perms}\\n]' "+rpm+" | grep -vc ^d")); got != want {
			t.Errorf("%s has %s files, the deb %s", name, got, want)
		}
	}
	db := t.TempDir()
	args := []string{"--dbpath", db, "--install", "--test", "--nodeps", "--ignoresize"}
	rpms, err := filepath.Glob(filepath.Join(built(t), "*.rpm"))
	if err != nil || len(rpms) != 3 {
		t.Fatalf("%q, %v", rpms, err)
	}
	output(t, "rpm", append(args, rpms...)...)
}
