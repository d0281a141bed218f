package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/berth-hpc/berth/testdata/cluster"
	"github.com/berth-hpc/berth/testdata/images"
)

const (
	registry = "10.97.0.1:5000"
	tiny     = registry + "/tiny:1"
	mpi      = registry + "/mpi:1"
)

// A site is a submit host and two nodes with PBS, Berth and a registry.
type site struct {
	*cluster.Cluster
	t *testing.T
}

var buildOnce = sync.OnceValue(func() error { return cluster.Build(root()) })

func root() string {
	dir, err := filepath.Abs("../..")
	if err != nil {
		panic(err)
	}
	return dir
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// bothWays runs a test on a site with idmapped image mounts and on one without.
func bothWays(t *testing.T, f func(t *testing.T, s *site), names ...string) {
	t.Helper()
	for _, idmap := range []bool{true, false} {
		t.Run(fmt.Sprintf("idmap=%v", idmap), func(t *testing.T) {
			f(t, newSite(t, fmt.Sprintf("[container]\nidmap = %v\nmounts = [\"/shared\"]\n", idmap), names...))
		})
	}
}

func newSite(t *testing.T, config string, names ...string) *site {
	t.Helper()
	must(t, buildOnce())
	for _, name := range names {
		images.Layout(t, name)
	}
	config += fmt.Sprintf("[registry.%q]\ninsecure = true\n", registry)
	s := &site{t: t, Cluster: cluster.Up(t, cluster.Options{
		Nodes: 2, Bare: true,
		Install:      []string{filepath.Join(root(), "build") + ":/opt/berth", programs(t) + ":" + execDir},
		ReadOnlyBind: []string{images.CacheDir() + ":" + images.CacheDir()},
		Files: []string{
			writeFile(t, "berth.toml", config) + ":/etc/berth/berth.toml",
			writeFile(t, "pbs.conf", "PBS_EXEC="+execDir+"\nPBS_HOME="+home+"\n") + ":/etc/pbs.conf",
		},
	})}
	s.startRegistry(names)
	s.startPBS()
	return s
}

func writeFile(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	must(t, os.WriteFile(path, []byte(text), 0o644))
	return path
}

// programs is PBS_EXEC: one program under all its names, static, because jobs
// call some from within their containers.
func programs(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.Command("go", "build", "-o", filepath.Join(dir, "bin/qsub"), ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, name := range []string{"qmgr", "pbsnodes", "pbs_tmrsh", "pbsdsh", "pbs_mom", "pbs_server"} {
		must(t, os.Symlink("qsub", filepath.Join(dir, "bin", name)))
	}
	must(t, os.CopyFS(filepath.Join(dir, "python"), os.DirFS("python")))
	must(t, os.Chmod(dir, 0o755))
	return dir
}

func (s *site) startRegistry(names []string) {
	s.t.Helper()
	s.Spawn("registry", cluster.Command{Machine: "ctl", Args: []string{
		"test-registry", "--listen", registry, "--dir", "/var/lib/registry", "--log", "/var/log/registry.log",
		"--ready-file", "/run/registry.ready",
	}})
	s.MustRun(s.t.Context(), "ctl", "root", "timeout", "100", "sh", "-c", "until [ -s /run/registry.ready ]; do sleep 0.05; done")
	args := []string{"test-images", "push", "--registry", registry}
	for _, name := range names {
		args = append(args, name+":1")
	}
	s.MustRun(s.t.Context(), "ctl", "root", args...)
}

// startPBS installs the hook as an admin does, before the nodes start.
func (s *site) startPBS() {
	s.t.Helper()
	s.MustRun(s.t.Context(), "ctl", "root", "/opt/berth/lib/berth/pbs/setup", "install")
	s.Spawn("pbs_server", cluster.Command{Machine: "ctl", Args: []string{execDir + "/bin/pbs_server"}})
	for _, node := range []string{"n1", "n2"} {
		s.startMom(node)
	}
	s.MustRun(s.t.Context(), "ctl", "root", "timeout", "100", "sh", "-c", "until [ -S "+serverPath+" ]; do sleep 0.05; done")
}

func (s *site) startMom(node string) {
	s.t.Helper()
	s.Spawn("pbs_mom."+node, cluster.Command{Machine: node, Args: []string{execDir + "/bin/pbs_mom"}})
	s.MustRun(s.t.Context(), node, "root", "timeout", "100", "bash", "-c", "until (exec 3<>/dev/tcp/127.0.0.1/15002) 2>/dev/null; do sleep 0.05; done")
}

// as runs a shell script on the submit host as a user, in their home.
func (s *site) as(t *testing.T, user, script string) cluster.Result {
	t.Helper()
	return s.With(t).Run(t.Context(), "ctl", user, "bash", "-c", "cd ~; "+script)
}

// on is root's view of a node.
func (s *site) on(t *testing.T, node, script string) string {
	t.Helper()
	r := s.With(t).Run(t.Context(), node, "root", "bash", "-c", script)
	if r.Code != 0 {
		t.Fatalf("%s: %v", script, r)
	}
	return r.Stdout
}

// clean fails the test unless jobs have left nothing on the nodes: no folder,
// mount, namespace, loop device or process.
func (s *site) clean(t *testing.T) {
	t.Helper()
	const look = `ls -A /run/berth/jobs 2>/dev/null; ls /run/berth/jobs/*/record.json 2>/dev/null
	[ ! -e /run/berth/private/mounts.ns ] || nsenter --mount=/run/berth/private/mounts.ns true 2>/dev/null
	ps -eo pid,user,args | grep -E '[b]erth-(hold|create|join)|[b]erth (node|task)'; ls ` + home + `/mom_priv/jobs; true`
	for _, node := range []string{"n1", "n2"} {
		until := time.Now().Add(2 * time.Minute)
		left := s.on(t, node, look)
		for left != "" && time.Now().Before(until) {
			left = s.on(t, node, look)
		}
		if left != "" {
			t.Errorf("left on %s: %s", node, left)
		}
	}
}
