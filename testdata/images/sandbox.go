package images

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
)

func debianArch() string {
	switch runtime.GOARCH {
	case "arm":
		return "armhf"
	case "386":
		return "i386"
	case "ppc64le":
		return "ppc64el"
	}
	return runtime.GOARCH
}

// ErrCannot says that this machine or user can't build the image asked for:
// nothing is wrong with the image. The text around it says what is missing.
var ErrCannot = errors.New("can't be built here")

// canSandbox reports what a build needs and this machine or user lacks.
func canSandbox() error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("%w: needs root, to unpack packages with their owners", ErrCannot)
	}
	if _, err := exec.LookPath("mmdebstrap"); err != nil {
		return fmt.Errorf("%w: needs mmdebstrap (apt-get install mmdebstrap)", ErrCannot)
	}
	if _, err := os.Stat(debianKeys); err != nil {
		return fmt.Errorf("%w: needs Debian's keys (apt-get install debian-archive-keyring)", ErrCannot)
	}
	return nil
}

// sandboxed runs a script of recipeFiles as root with the given environment,
// as pid 1 of pid and mount namespaces of its own: when it ends, or this
// process does, or ctx does, its processes are killed and its mounts gone.
func sandboxed(ctx context.Context, script string, env map[string]string) error {
	text, err := recipeFiles.ReadFile(script)
	if err != nil {
		return err
	}
	// The parent-death signal comes when the starting thread ends.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := exec.CommandContext(ctx, "/bin/bash", "-c", string(text), script)
	cmd.Env = []string{"PATH=" + debianPath, "LC_ALL=C.UTF-8"}
	for name, value := range env {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID,
		Pdeathsig:  syscall.SIGKILL,
		Setsid:     true,
	}
	_, err = run(cmd)
	return err
}

// A tree is the folders that make up an image, uppermost first.
type tree []string

// A change is one run of chroot.sh.
type change struct {
	lower    tree
	upper    string // made; receives what changes
	share    string // at /share meanwhile
	packages []string
	script   string
}

// apply runs c. Scratch files go to work, which must be on the file system
// of c.upper.
func (a archive) apply(ctx context.Context, work string, c change) error {
	for _, dir := range []string{c.upper, work, c.share} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	defer os.RemoveAll(work)
	err := sandboxed(ctx, "chroot.sh", map[string]string{
		"LOWER": strings.Join(c.lower, ":"), "UPPER": c.upper, "WORK": work, "SHARE": c.share,
		"PACKAGES": strings.Join(c.packages, " "), "SCRIPT": c.script, "APT_OPTIONS": a.options(),
	})
	if err != nil {
		return fmt.Errorf("change %s: %w", filepath.Base(c.upper), err)
	}
	return nil
}

// bootstrap makes a minimal Debian in dir.
func (a archive) bootstrap(ctx context.Context, suite, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return sandboxed(ctx, "base.sh", map[string]string{
		"SUITE": suite, "TREE": dir, "SOURCES": a.sources(), "OPTIONS": a.network(),
	})
}
