package images

import (
	"bytes"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// OwnerPackages are Debian packages with accounts and owners of their own,
// made by adduser, addgroup, systemd-sysusers, dpkg-statoverride and chown, and
// with file capabilities.
func OwnerPackages() []string {
	return []string{"openssh-server", "dbus", "man-db", "postfix", "systemd", "tcpdump", "libcap2-bin"}
}

// RPMPackages make and install packages of the other kind.
func RPMPackages() []string { return []string{"rpm", "dnf", "createrepo-c", "file"} }

// installFiles are scripts for containers, laid into each repository:
//
//	apt.sh PACKAGE...   installs from the repository, which is at /repo
//	rpm.sh              makes a package of the other kind, and installs it with rpm and with dnf
//
//go:embed install
var installFiles embed.FS

// Repository makes a folder that apt takes as a source, as in
// "deb [trusted=yes] file:FOLDER ./": packages, and all that they need besides
// what the Debian image base has. Containers of tests install from it, because
// they reach no network.
func (b Builder) Repository(ctx context.Context, packages ...string) (string, error) {
	if err := b.Build(ctx, "base"); err != nil {
		return "", err
	}
	base, err := recipeNamed("base")
	if err != nil {
		return "", err
	}
	key, err := base.key()
	if err != nil {
		return "", err
	}
	h := sha256.New()
	fmt.Fprintln(h, key, packages)
	if err := eachInstallFile(func(name string, data []byte) error {
		_, err := fmt.Fprintf(h, "%s %s\n", name, data)
		return err
	}); err != nil {
		return "", err
	}
	dir := filepath.Join(b.Cache, "packages", hex.EncodeToString(h.Sum(nil)[:6]))
	unlock, err := lock(ctx, filepath.Join(b.Cache, "locks", "packages"))
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	return dir, b.makeRepository(ctx, base, dir, packages)
}

func (b Builder) makeRepository(ctx context.Context, base Recipe, dir string, packages []string) error {
	arch, err := b.archive(ctx)
	if err != nil {
		return err
	}
	lower, err := b.tree(base)
	if err != nil {
		return err
	}
	work := dir + ".new"
	if err := os.RemoveAll(work); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(work, "partial"), 0o755); err != nil {
		return cannotWrite(err)
	}
	args := []string{
		"-c", arch.options(), "-qq", "-y", "--no-install-recommends", "--download-only",
		"-o", "Dir::State::status=" + filepath.Join(lower[0], "var/lib/dpkg/status"),
		"-o", "Dir::Cache::archives=" + work + "/", "-o", "Debug::NoLocking=1", "install",
	}
	if _, err := output(ctx, "apt-get", append(args, packages...)...); err != nil {
		return fmt.Errorf("download packages: %w", err)
	}
	err = eachInstallFile(func(name string, data []byte) error {
		return os.WriteFile(filepath.Join(work, name), data, 0o755)
	})
	if err := errors.Join(err, indexPackages(ctx, work)); err != nil {
		return err
	}
	return os.Rename(work, dir)
}

func eachInstallFile(f func(name string, data []byte) error) error {
	entries, err := installFiles.ReadDir("install")
	if err != nil {
		return err
	}
	for _, e := range entries {
		data, err := installFiles.ReadFile("install/" + e.Name())
		if err := errors.Join(err, f(e.Name(), data)); err != nil {
			return err
		}
	}
	return nil
}

// indexPackages writes the file Packages of a flat repository.
func indexPackages(ctx context.Context, dir string) error {
	debs, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil {
		return err
	}
	var index bytes.Buffer
	for _, deb := range debs {
		control, err := output(ctx, "dpkg-deb", "--field", deb)
		if err != nil {
			return err
		}
		data, err := os.ReadFile(deb)
		if err != nil {
			return err
		}
		fmt.Fprintf(&index, "%sFilename: ./%s\nSize: %d\nSHA256: %x\n\n", control, filepath.Base(deb), len(data), sha256.Sum256(data))
	}
	return os.WriteFile(filepath.Join(dir, "Packages"), index.Bytes(), 0o644)
}
