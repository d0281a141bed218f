package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/berth-hpc/berth/testdata/cluster"
	"github.com/berth-hpc/berth/testdata/deploy"
)

const registry = deploy.Registry

// tiny is a static busybox: small enough for tests of everything but tools.
const tiny = registry + "/tiny:1"

// A site is a cluster with Berth installed and a registry on its submit host.
type site struct {
	*cluster.Cluster
	t *testing.T
}

// An option changes how a site is set up.
type option func(*setup)

type setup deploy.Options

func withConf(lines ...string) option {
	return func(s *setup) { s.Cluster.Conf = append(s.Cluster.Conf, lines...) }
}

func withConfig(toml string) option { return func(s *setup) { s.Config = toml + s.Config } }

// withContainer adds lines to the section container, for tests in bothWays.
func withContainer(lines string) option {
	return func(s *setup) { s.Config = strings.Replace(s.Config, "[container]\n", "[container]\n"+lines+"\n", 1) }
}

func withImages(names ...string) option {
	return func(s *setup) { s.Images = append(s.Images, names...) }
}

func withJobContainer(s *setup) { s.Cluster.JobContainer = true }

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
	set := &setup{Config: fmt.Sprintf("mounts = [\"/shared\"]\n[registry.%q]\ninsecure = true\n", registry), Images: []string{"tiny"}}
	for _, o := range options {
		o(set)
	}
	if !strings.Contains(set.Config, "[container]") {
		set.Config = "[container]\n" + set.Config
	}
	return &site{Cluster: deploy.Up(t, deploy.Options(*set)), t: t}
}

func writeFile(t *testing.T, name, text string) string {
	t.Helper()
	return deploy.WriteFile(t, name, text)
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
