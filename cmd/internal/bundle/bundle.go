// Package bundle reads OCI bundles (config.json of the OCI runtime
// specification, version 1) as Berth can run them: without root, as the user,
// in the cgroup of the caller. What a bundle asks for beyond that is left out,
// and said.
package bundle

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/berth-hpc/berth/fault"
)

// maxConfig bounds config.json, in bytes.
const maxConfig = 16 << 20

// A Bundle is what a container of a bundle is to be like.
type Bundle struct {
	Dir      string // where it lies, absolute
	Root     string // the root file system, absolute
	ReadOnly bool
	AsRoot   bool     // the process is root in appearance
	Args     []string // never empty
	Env      []string // NAME=VALUE: all that the process gets
	Cwd      string
	Mounts   []string // as berth run --mount takes them
	Notes    []string // what is left out

	Annotations map[string]string
}

// Read reads the bundle in dir.
func Read(dir string) (*Bundle, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	spec, err := readSpec(filepath.Join(dir, "config.json"))
	if err != nil {
		return nil, fault.Wrap("read the bundle", dir, fault.User,
			"a bundle is a folder with config.json (runc spec --rootless writes one) and a root file system", err)
	}
	b := &Bundle{Dir: dir, Annotations: spec.Annotations}
	if err := b.take(spec); err != nil {
		return nil, fault.Wrap("read the bundle", dir, fault.User, "correct its config.json", err)
	}
	return b, nil
}

func readSpec(path string) (*specs.Spec, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxConfig {
		return nil, fmt.Errorf("config.json is larger than %d bytes", maxConfig)
	}
	var spec specs.Spec
	if err := json.Unmarshal(data, &spec); err != nil {
		return nil, fmt.Errorf("config.json: %w", err)
	}
	return &spec, nil
}

func (b *Bundle) take(spec *specs.Spec) error {
	switch {
	case !strings.HasPrefix(spec.Version, "1."):
		return fmt.Errorf("ociVersion is %q, want 1.x", spec.Version)
	case spec.Root == nil || spec.Root.Path == "":
		return errors.New("root.path is missing")
	case spec.Process == nil || len(spec.Process.Args) == 0:
		return errors.New("process.args is empty")
	case !filepath.IsAbs(spec.Process.Cwd):
		return fmt.Errorf("process.cwd is %q, want an absolute path", spec.Process.Cwd)
	case spec.Process.Terminal:
		return errors.New("process.terminal is true, but the caller's own terminal is used")
	}
	b.Root, b.ReadOnly = spec.Root.Path, spec.Root.Readonly
	if !filepath.IsAbs(b.Root) {
		b.Root = filepath.Join(b.Dir, b.Root)
	}
	b.Args, b.Env, b.Cwd = spec.Process.Args, spec.Process.Env, spec.Process.Cwd
	b.AsRoot = spec.Process.User.UID == 0
	b.leaveOut(spec)
	return b.takeMounts(spec.Mounts)
}

// given are targets of what every container has by itself.
var given = []string{"/proc", "/sys", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue", "/sys/fs/cgroup"}

func (b *Bundle) takeMounts(mounts []specs.Mount) error {
	for _, m := range mounts {
		target := filepath.Clean(m.Destination)
		isBind := m.Type == "bind" || slices.Contains(m.Options, "bind") || slices.Contains(m.Options, "rbind")
		switch {
		case !filepath.IsAbs(target):
			return fmt.Errorf("mount of %q: the destination is not absolute", m.Destination)
		case isBind:
			if !filepath.IsAbs(m.Source) {
				m.Source = filepath.Join(b.Dir, m.Source)
			}
			if err := b.addBind(m, target); err != nil {
				return err
			}
		case slices.Contains(given, target):
		case m.Type == "tmpfs":
			if err := checkPaths("tmpfs", target); err != nil {
				return err
			}
			b.Mounts = append(b.Mounts, "tmpfs:"+target)
		default:
			b.note("a %s on %s is not mounted", m.Type, target)
		}
	}
	return nil
}

// known are the options of mount(8) that berth run --mount knows, too.
var known = []string{"ro", "rw", "nosuid", "nodev", "noexec", "private", "rprivate", "slave", "rslave", "shared", "rshared", "bind", "rbind"}

func (b *Bundle) addBind(m specs.Mount, target string) error {
	if err := checkPaths(m.Source, target); err != nil {
		return err
	}
	flags := slices.DeleteFunc(slices.Clone(m.Options), func(o string) bool { return !slices.Contains(known, o) })
	mount := m.Source + ":" + target
	if len(flags) > 0 {
		mount += ":" + strings.Join(flags, "+")
	}
	b.Mounts = append(b.Mounts, mount)
	return nil
}

// checkPaths refuses what would mean something else in an entry of --mount.
func checkPaths(source, target string) error {
	if strings.ContainsAny(source+target, ":,\n") {
		return fmt.Errorf("mount of %q on %q: colons, commas and newlines can't be in the paths", source, target)
	}
	return nil
}

// leaveOut notes what a bundle may ask for and does not get.
func (b *Bundle) leaveOut(spec *specs.Spec) {
	if spec.Hooks != nil {
		b.note("hooks are not run: Berth takes them from the site's settings")
	}
	if spec.Hostname != "" {
		b.note("the host name stays the node's")
	}
	if spec.Linux != nil && len(spec.Linux.Devices) > 0 {
		b.note("devices are not made: Berth takes them from CDI (berth devices)")
	}
}

func (b *Bundle) note(format string, args ...any) {
	b.Notes = append(b.Notes, fmt.Sprintf(format, args...))
}
