// Package deploy installs Berth on a cluster of package cluster as an admin
// would: programs and plugin on every machine, a berth.toml, and a registry on
// the submit host with the images of package images. Tests of users' jobs
// (testdata/e2e) and the soak (testdata/soak) run on it.
package deploy

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/berth-hpc/berth/testdata/cluster"
	"github.com/berth-hpc/berth/testdata/images"
)

// Registry is the address of the registry on the submit host.
const Registry = "10.97.0.1:5000"

// Options say what to install where.
type Options struct {
	Cluster cluster.Options
	Config  string   // /etc/berth/berth.toml of every machine
	More    []string // files of /etc/berth/conf.d: 0.toml, 1.toml …
	Images  []string // of package images, pushed to the registry as NAME:1
}

var build = sync.OnceValue(func() error { return cluster.Build(Root()) })

// Root is the top of the repository, two folders above a test's own.
func Root() string {
	dir, err := filepath.Abs("../..")
	if err != nil {
		panic(err)
	}
	return dir
}

// Up builds Berth, starts a cluster with it, and the registry. It skips the
// test where no cluster can be started.
func Up(t testing.TB, o Options) *cluster.Cluster {
	t.Helper()
	if err := build(); err != nil {
		t.Fatal(err)
	}
	for _, name := range o.Images {
		images.Layout(t, name)
	}
	c := &o.Cluster
	c.Install = append(c.Install, filepath.Join(Root(), "build")+":/opt/berth")
	c.Plugstack = append(c.Plugstack,
		"required /opt/berth/lib/berth/spank_berth.so bindir=/opt/berth/bin libexec=/opt/berth/libexec/berth")
	c.ReadOnlyBind = append(c.ReadOnlyBind, images.CacheDir()+":"+images.CacheDir())
	c.Files = append(c.Files, WriteFile(t, "berth.toml", o.Config)+":/etc/berth/berth.toml")
	for i, toml := range o.More {
		name := fmt.Sprintf("%d.toml", i)
		c.Files = append(c.Files, WriteFile(t, name, toml)+":/etc/berth/conf.d/"+name)
	}
	up := cluster.Up(t, *c)
	if len(o.Images) > 0 {
		startRegistry(t, up, o.Images)
	}
	return up
}

// WriteFile leaves a file in a folder of the test's and returns its path.
func WriteFile(t testing.TB, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func startRegistry(t testing.TB, c *cluster.Cluster, names []string) {
	t.Helper()
	c.Spawn("registry", cluster.Command{Machine: "ctl", Args: []string{
		"test-registry", "--listen", Registry, "--dir", "/var/lib/registry", "--log", "/var/log/registry.log",
		"--ready-file", "/run/registry.ready",
	}})
	c.MustRun(t.Context(), "ctl", "root", "timeout", "20", "sh", "-c", "until [ -s /run/registry.ready ]; do sleep 0.05; done")
	args := []string{"test-images", "push", "--registry", Registry}
	for _, name := range names {
		args = append(args, name+":1")
	}
	c.MustRun(t.Context(), "ctl", "root", args...)
}
