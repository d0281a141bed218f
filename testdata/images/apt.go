package images

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// Package lists older than this are fetched again before a build: an archive
// drops what a newer version replaces.
const listsMaxAge = 6 * time.Hour

// An archive is the host's view of Debian's archive: where its packages come
// from, and the lists of what is there. Its files live in the cache, the
// host's own apt state is never written.
type archive struct {
	dir string
}

func (a archive) options() string { return filepath.Join(a.dir, "apt.conf") }
func (a archive) sources() string { return filepath.Join(a.dir, "sources.list") }
func (a archive) network() string { return filepath.Join(a.dir, "network.conf") }

// openArchive brings the lists in cache up to date. The caller holds the
// cache's "apt" lock.
func openArchive(ctx context.Context, cache string) (archive, error) {
	a := archive{filepath.Join(cache, "apt")}
	if a.fresh() {
		return a, nil
	}
	for _, dir := range []string{"lists/partial", "archives/partial"} {
		if err := os.MkdirAll(filepath.Join(a.dir, dir), 0o755); err != nil {
			return a, err
		}
	}
	if _, err := exec.LookPath("apt-get"); err != nil {
		return a, fmt.Errorf("%w: needs Debian's apt", ErrCannot)
	}
	if err := a.update(ctx); err != nil {
		return a, fmt.Errorf("%w: needs the host's apt sources (see apt-get update): %w", ErrCannot, err)
	}
	return a, nil
}

func (a archive) fresh() bool {
	fi, err := os.Stat(a.sources())
	return err == nil && time.Since(fi.ModTime()) < listsMaxAge
}

// update fetches the lists with the host's sources, then writes those of the
// sources that are Debian's own to sources.list: packages of third parties
// have no place in test images.
func (a archive) update(ctx context.Context) error {
	if err := a.writeOptions(""); err != nil {
		return err
	}
	if _, err := output(ctx, "apt-get", "-c", a.options(), "-qq", "update"); err != nil {
		return err
	}
	format := "deb [signed-by=" + debianKeys + "] $(REPO_URI) $(RELEASE) $(COMPONENT)"
	lines, err := output(ctx, "apt-get", "-c", a.options(), "indextargets", "--format", format,
		"Created-By: Packages", "Origin: Debian", "Architecture: "+debianArch())
	if err != nil {
		return err
	}
	if len(bytes.TrimSpace(lines)) == 0 {
		return errors.New("apt knows no source of Debian packages")
	}
	network, err := output(ctx, "apt-config", "dump", "--format", `%F "%v";%n`, "Acquire")
	if err != nil {
		return err
	}
	if err := os.WriteFile(a.network(), network, 0o644); err != nil {
		return err
	}
	if err := a.writeOptions(a.sources()); err != nil {
		return err
	}
	return os.WriteFile(a.sources(), lines, 0o644)
}

const debianKeys = "/usr/share/keyrings/debian-archive-keyring.gpg"

// writeOptions writes the apt options of all further calls. The host's own
// configuration is read before them, for proxies and the like; its hooks
// (which may be meant for the host's packages only) are taken out.
func (a archive) writeOptions(sources string) error {
	var b strings.Builder
	for _, hook := range []string{
		"DPkg::Pre-Invoke", "DPkg::Post-Invoke", "DPkg::Pre-Install-Pkgs", "DPkg::Tools",
		"APT::Update::Pre-Invoke", "APT::Update::Post-Invoke", "APT::Update::Post-Invoke-Success",
	} {
		fmt.Fprintf(&b, "#clear %s;\n", hook)
	}
	fmt.Fprintf(&b, "Dir::State::lists %q;\n", filepath.Join(a.dir, "lists"))
	fmt.Fprintf(&b, "Dir::Cache %q;\n", a.dir)
	b.WriteString("Dir::Cache::pkgcache \"\";\nDir::Cache::srcpkgcache \"\";\n" +
		"APT::Sandbox::User \"root\";\nAPT::Install-Recommends \"false\";\n" +
		"Acquire::Languages \"none\";\nAcquire::Retries \"3\";\nAcquire::http::Timeout \"30\";\n")
	if sources != "" {
		fmt.Fprintf(&b, "Dir::Etc::SourceList %q;\nDir::Etc::SourceParts \"/dev/null\";\n", sources)
	}
	return os.WriteFile(a.options(), []byte(b.String()), 0o644)
}

// unpack downloads a package and unpacks its files to dir. Nothing is
// installed, and no root is needed.
func (a archive) unpack(ctx context.Context, pkg, dir string) error {
	debs, err := os.MkdirTemp(a.dir, "download-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(debs)
	cmd := exec.CommandContext(ctx, "apt-get", "-c", a.options(), "-qq", "download", pkg)
	cmd.Dir = debs
	if _, err := run(cmd); err != nil {
		return err
	}
	found, err := filepath.Glob(filepath.Join(debs, "*.deb"))
	if err != nil || len(found) != 1 {
		return fmt.Errorf("download %s: %d packages came (%w)", pkg, len(found), err)
	}
	_, err = output(ctx, "dpkg-deb", "-x", found[0], dir)
	return err
}

// date is the day of the archive: the newest date of its lists. Nothing in
// them is younger, so it can stand for "now" and the same archive gives the
// same image.
func (a archive) date() (time.Time, error) {
	releases, err := filepath.Glob(filepath.Join(a.dir, "lists", "*Release"))
	if err != nil {
		return time.Time{}, err
	}
	var newest time.Time
	for _, path := range releases {
		data, err := os.ReadFile(path)
		if err != nil {
			return time.Time{}, err
		}
		if t := releaseDate(data); t.After(newest) {
			newest = t
		}
	}
	if newest.IsZero() {
		return newest, errors.New("no date in the package lists")
	}
	return newest, nil
}

func releaseDate(release []byte) time.Time {
	for line := range strings.Lines(string(release)) {
		if value, ok := strings.CutPrefix(line, "Date: "); ok {
			t, err := time.Parse(time.RFC1123, strings.TrimSpace(value))
			if err == nil {
				return t.UTC()
			}
		}
	}
	return time.Time{}
}

func output(ctx context.Context, name string, args ...string) ([]byte, error) {
	return run(exec.CommandContext(ctx, name, args...))
}

// run returns what a command prints. Its error carries the end of what the
// command said on stderr.
func run(cmd *exec.Cmd) ([]byte, error) {
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%s: %w: %s", cmd.Args[0], err, tail(said.String()))
	}
	return out.Bytes(), nil
}

func tail(s string) string {
	const most = 2000
	s = strings.TrimSpace(s)
	if len(s) > most {
		s = "… " + s[len(s)-most:]
	}
	return s
}
