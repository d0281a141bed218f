package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/berth-hpc/berth/testdata/cluster"
	"github.com/berth-hpc/berth/testdata/images"
)

const registry = "10.97.0.1:5000"

// tiny is a static busybox: small enough for tests of everything but tools.
const tiny = registry + "/tiny:1"

// A site is a cluster with Berth installed and a registry on its submit host.
type site struct {
	*cluster.Cluster
	t *testing.T
}

// An option changes how a site is set up.
type option func(*setup)

type setup struct {
	options cluster.Options
	config  string
	more    []string // further files of settings
	images  []string
}

func withConf(lines ...string) option {
	return func(s *setup) { s.options.Conf = append(s.options.Conf, lines...) }
}

func withConfig(toml string) option { return func(s *setup) { s.config = toml + s.config } }

// withContainer adds lines to the section container, for tests in bothWays.
func withContainer(lines string) option {
	return func(s *setup) { s.config = strings.Replace(s.config, "[container]\n", "[container]\n"+lines+"\n", 1) }
}

func withImages(names ...string) option {
	return func(s *setup) { s.images = append(s.images, names...) }
}

func withJobContainer(s *setup) { s.options.JobContainer = true }

var buildOnce = sync.OnceValue(func() error { return cluster.Build(root()) })

func root() string {
	dir, err := filepath.Abs("../..")
	if err != nil {
		panic(err)
	}
	return dir
}

// bothWays runs a test on a site with idmapped image mounts and on one without.
func bothWays(t *testing.T, f func(t *testing.T, s *site), options ...option) {
	t.Helper()
	for _, idmap := range []bool{true, false} {
		t.Run(fmt.Sprintf("idmap=%v", idmap), func(t *testing.T) {
			all := append([]option{withConfig(fmt.Sprintf("[container]\nidmap = %v\n", idmap))}, options...)
			f(t, newSite(t, all...))
		})
	}
}

func newSite(t *testing.T, options ...option) *site {
	t.Helper()
	if err := buildOnce(); err != nil {
		t.Fatal(err)
	}
	set := &setup{config: fmt.Sprintf("mounts = [\"/shared\"]\n[registry.%q]\ninsecure = true\n", registry), images: []string{"tiny"}}
	for _, o := range options {
		o(set)
	}
	if !strings.Contains(set.config, "[container]") {
		set.config = "[container]\n" + set.config
	}
	for _, name := range set.images {
		images.Layout(t, name)
	}
	set.options.Install = []string{filepath.Join(root(), "build") + ":/opt/berth"}
	set.options.Plugstack = []string{
		"required /opt/berth/lib/berth/spank_berth.so bindir=/opt/berth/bin libexec=/opt/berth/libexec/berth",
	}
	set.options.ReadOnlyBind = append(set.options.ReadOnlyBind, images.CacheDir()+":"+images.CacheDir())
	set.options.Files = append(set.options.Files, writeFile(t, "berth.toml", set.config)+":/etc/berth/berth.toml")
	for i, toml := range set.more {
		name := fmt.Sprintf("%d.toml", i)
		set.options.Files = append(set.options.Files, writeFile(t, name, toml)+":/etc/berth/conf.d/"+name)
	}
	s := &site{Cluster: cluster.Up(t, set.options), t: t}
	s.startRegistry(set.images)
	s.openFUSE()
	return s
}

func writeFile(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func (s *site) startRegistry(names []string) {
	s.t.Helper()
	s.Spawn("registry", cluster.Command{Machine: "ctl", Args: []string{
		"test-registry", "--listen", registry, "--dir", "/var/lib/registry", "--log", "/var/log/registry.log",
		"--ready-file", "/run/registry.ready",
	}})
	s.MustRun(s.t.Context(), "ctl", "root", "timeout", "20", "sh", "-c", "until [ -s /run/registry.ready ]; do sleep 0.05; done")
	args := []string{"test-images", "push", "--registry", registry}
	for _, name := range names {
		args = append(args, name+":1")
	}
	s.MustRun(s.t.Context(), "ctl", "root", args...)
}

// openFUSE gives /dev/fuse the mode that udev gives it: machines that build
// software often run no udev.
func (s *site) openFUSE() {
	for _, node := range []string{"n1", "n2", "n3"} {
		s.MustRun(s.t.Context(), node, "root", "sh", "-c",
			"mknod /var/lib/fuse c 10 229 && chmod 666 /var/lib/fuse && mount --bind /var/lib/fuse /dev/fuse")
	}
}

// as runs a shell script on the submit host as a user, in their home.
func (s *site) as(t *testing.T, user, script string) cluster.Result {
	t.Helper()
	return s.With(t).Run(t.Context(), "ctl", user, "bash", "-c", "cd ~; "+script)
}

// idle fails the test unless every node takes jobs.
func (s *site) idle(t *testing.T) {
	t.Helper()
	s.With(t).WaitIdle()
	for _, node := range []string{"n1", "n2", "n3"} {
		if state := s.With(t).NodeState(node); state != "idle" {
			t.Errorf("%s is %s", node, state)
		}
	}
}
