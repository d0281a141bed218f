package docs

import (
	"testing"

	"github.com/berth-hpc/berth/testdata/cluster"
	"github.com/berth-hpc/berth/testdata/deploy"
	"github.com/berth-hpc/berth/testdata/images"
)

// host is the site's registry. Under the names of public registries it has
// test images in place of the images that documents name. On port 5000 is
// another one, for alice with the password secret.
const host = "registry.example.org"

// stands says which test image stands for which that documents name: below the
// name of its registry, or in the site's own.
var stands = map[string]string{
	"quay.io/biocontainers/samtools:1.20":             "bio",
	"quay.io/biocontainers/samtools:1.17--h00cdaf9_0": "bio",
	"quay.io/biocontainers/bwa:0.7.18":                "bio",
	"quay.io/jupyter/scipy-notebook:2024-05-27":       "jupyter",
	"docker.io/pytorch/pytorch:2.3.0":                 "torch",
	"hpc/openmpi:4.1":                                 "mpi",
	"hpc/mpich:4.0":                                   "mpich",
	"docker.io/library/debian:12":                     "base",
	"flow/nextflow:24":                                "tiny",
	"me/tool:1":                                       "bio",
}

const settings = `
[container]
mounts = ["/shared", "/db:ro"]
[registry."` + host + `"]
insecure = true
[registry."` + host + `:5000"]
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
		Cluster: cluster.Options{Nodes: 2, Conf: conf, Bind: []string{t.TempDir() + ":/lustre"}, ReadOnlyBind: []string{data + "/db:/db", data + "/reads:/reads"}},
	})
	for _, machine := range []string{"ctl", "n1", "n2"} {
		c.MustRun(t.Context(), machine, "root", "sh", "-c", "echo 10.97.0.1 "+host+" >>/etc/hosts; mkdir /data /scratch /softs")
	}
	serve(t, c, "open", "10.97.0.1:80")
	c.MustRun(t.Context(), "ctl", "root", "sh", "-c", "echo alice:secret >/etc/registry-users")
	serve(t, c, "closed", "10.97.0.1:5000", "--users-file", "/etc/registry-users")
	push := []string{"test-images", "push", "--registry", "10.97.0.1:80"}
	for name, image := range stands {
		push = append(push, image+"="+name)
	}
	c.MustRun(t.Context(), "ctl", "root", push...)
	return c
}

// serve starts a registry on the submit host.
func serve(t *testing.T, c *cluster.Cluster, name, address string, more ...string) {
	t.Helper()
	c.Spawn(name, cluster.Command{Machine: "ctl", Args: append([]string{
		"test-registry", "--listen", address, "--dir", "/var/lib/" + name, "--log", "/var/log/" + name, "--ready-file", "/run/" + name,
	}, more...)})
	c.MustRun(t.Context(), "ctl", "root", "timeout", "20", "sh", "-c", "until [ -s /run/"+name+" ]; do sleep 0.05; done")
}
