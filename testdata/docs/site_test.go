package docs

import (
	"testing"

	"github.com/berth-hpc/berth/testdata/cluster"
	"github.com/berth-hpc/berth/testdata/deploy"
	"github.com/berth-hpc/berth/testdata/images"
)

// host is the site's registry. Under the names of public registries it has
// test images in place of the images that documents name.
const host = "registry.example.org"

// stands says which test image stands for which that documents name: below the
// name of its registry, or in the site's own.
var stands = map[string]string{
	"quay.io/biocontainers/samtools:1.20":             "bio",
	"quay.io/biocontainers/samtools:1.17--h00cdaf9_0": "bio",
	"docker.io/library/debian:12":                     "base",
	"flow/nextflow:24":                                "tiny",
	"me/tool:1":                                       "bio",
}

const settings = `
[container]
mounts = ["/shared", "/db:ro"]
[registry."` + host + `"]
insecure = true
[registry."quay.io"]
mirrors = ["` + host + `/quay.io"]
[registry."docker.io"]
mirrors = ["` + host + `/docker.io"]
`

// The numbers of jobs are none that documents have for something else.
var conf = []string{"FirstJobId=8000", "PartitionName=compute Nodes=ALL"}

// newSite starts the cluster on which documents' commands run.
func newSite(t *testing.T) *cluster.Cluster {
	t.Helper()
	for _, image := range stands {
		images.Layout(t, image)
	}
	data := images.DataDir(t)
	c := deploy.Up(t, deploy.Options{
		Config:  settings,
		Cluster: cluster.Options{Nodes: 2, Conf: conf, ReadOnlyBind: []string{data + "/db:/db", data + "/reads:/reads"}},
	})
	for _, machine := range []string{"ctl", "n1", "n2"} {
		c.MustRun(t.Context(), machine, "root", "sh", "-c", "echo 10.97.0.1 "+host+" >>/etc/hosts; mkdir /data /scratch /softs /lustre")
	}
	c.Spawn("registry", cluster.Command{Machine: "ctl", Args: []string{
		"test-registry", "--listen", "10.97.0.1:80", "--dir", "/var/lib/registry", "--log", "/var/log/registry.log", "--ready-file", "/run/registry.ready",
	}})
	c.MustRun(t.Context(), "ctl", "root", "timeout", "20", "sh", "-c", "until [ -s /run/registry.ready ]; do sleep 0.05; done")
	push := []string{"test-images", "push", "--registry", "10.97.0.1:80"}
	for name, image := range stands {
		push = append(push, image+"="+name)
	}
	c.MustRun(t.Context(), "ctl", "root", push...)
	return c
}
