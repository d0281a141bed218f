package prolog

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/berth-hpc/berth/imagecache/store"
	"github.com/berth-hpc/berth/prolog/jobstate"
)

// A job's lease is renewed by what happens on its node while it runs.
func TestClusterLeaseIsRenewed(t *testing.T) {
	if !privateMounts(t) {
		return
	}
	dir, reg := shared(t), newRegistry(t)
	image, digest := reg.push(t, "a/b:v1", "inside")
	n := newNodes(t, 1, dir, true)[0]
	for job := range uint32(2) {
		n.prepare(request(1+job, image, digest))
		n.ready(request(1+job, image, digest))
	}
	old := time.Now().Add(-50 * time.Minute)
	age := func() {
		d, err := store.ParseDigest(digest)
		must(t, err)
		must(t, os.Chtimes(clusterLeases(dir)[0], old, old))
		must(t, os.Chtimes(filepath.Join(inPlaceFolder(n.cfg.RunDir, d), "lease"), old, old))
	}
	renewed := func(by string) {
		t.Helper()
		if info, err := os.Stat(clusterLeases(dir)[0]); err != nil || time.Since(info.ModTime()) > time.Minute {
			t.Errorf("%s did not renew the lease: %v", by, err)
		}
	}
	age()
	n.cleanup(1)
	renewed("the end of another job")
	age()
	n.prepare(request(3, image, digest))
	n.ready(request(3, image, digest))
	renewed("the start of another job")
	n.cleanup(2)
	n.cleanup(3)
	n.checkClean()
	checkShared(t, dir)
}

// What a node leased before it was booted is not in use.
func TestClusterLeaseBeforeTheBoot(t *testing.T) {
	if !privateMounts(t) {
		return
	}
	dir, reg := shared(t), newRegistry(t)
	image, digest := reg.push(t, "a/b:v1", "inside")
	n := newNodes(t, 1, dir, true)[0]
	n.prepare(request(1, image, digest))
	n.ready(request(1, image, digest))
	n.cleanup(1)
	must(t, os.Remove(sweptPath(n.cfg.RunDir)))
	old := filepath.Join(dir, "leases", "other.p1", "n1.oldboot")
	must(t, os.MkdirAll(filepath.Dir(old), 0o755))
	must(t, os.WriteFile(old, nil, 0o644))
	n.prepare(request(1, image, digest))
	n.ready(request(1, image, digest))
	if _, err := os.Stat(old); err == nil {
		t.Error("it is still there")
	}
	n.cleanup(1)
	n.checkClean()
}

// The end of a job whose leases cannot be ended does not wait for the shared
// file system, and the next end does it.
func TestClusterVanishesWhileInUse(t *testing.T) {
	if !privateMounts(t) {
		return
	}
	dir, reg := shared(t), newRegistry(t)
	image, digest := reg.push(t, "a/b:v1", "inside")
	n := newNodes(t, 1, dir, true)[0]
	r := request(1, image, digest)
	n.prepare(r)
	ready := n.ready(r)
	must(t, os.Rename(dir, dir+".away"))
	if got := n.read(ready.Mount, "hello"); got != "inside" {
		t.Errorf("the image says %q", got)
	}
	m := message(t, jobstate.Request{Job: 1, Image: "x"})
	if err := Cleanup(t.Context(), n.cfg.Config, strings.NewReader(string(m))); err == nil || !strings.Contains(err.Error(), "cluster's store") {
		t.Errorf("cleaning up: %v", err)
	}
	if got := n.mounted(); len(got) != 0 {
		t.Errorf("still mounted: %q", got)
	}
	must(t, os.Rename(dir+".away", dir))
	n.cleanup(1)
	n.checkClean()
	checkShared(t, dir)
}
