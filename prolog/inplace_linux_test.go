package prolog

import (
	"errors"
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

// An admin removes the image again and again while jobs of two nodes begin and
// end: a job has it in place, leased, or from elsewhere, and always whole.
func TestClusterUseAgainstRemoval(t *testing.T) {
	if !privateMounts(t) {
		return
	}
	dir, reg := shared(t), newRegistry(t)
	image, digest := reg.push(t, "a/b:v1", "inside")
	d, err := store.ParseDigest(digest)
	must(t, err)
	nodes := newNodes(t, 2, dir, true)
	admin, err := ClusterConfig{Dir: dir, ClusterOptions: store.ClusterOptions{
		Host: "admin", Writer: true, Stale: 3 * time.Second, Lease: time.Hour, Patience: 10 * time.Second,
	}}.open(t.Context())
	must(t, err)
	stop, stopped := make(chan struct{}), make(chan struct{})
	removed := 0
	go func() {
		defer close(stopped)
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
			}
			if im, err := admin.Get(d); err == nil && admin.Remove(im) == nil {
				removed++
			}
			admin.Expunge(t.Context())
		}
	}()
	inPlace := 0
	for job := range uint32(8) {
		for _, n := range nodes {
			n.prepare(request(1+job, image, digest))
		}
		for _, n := range nodes {
			ready := n.ready(request(1+job, image, digest))
			if got := n.read(ready.Mount, "hello"); got != "inside" {
				t.Errorf("the image says %q", got)
			}
			if strings.HasPrefix(ready.Dir, n.cfg.RunDir) {
				inPlace++
				eventually(t, "a leased image has its name", func() bool { return len(clusterImages(dir)) == 1 })
			} else { // for the next job to begin anew
				must(t, os.RemoveAll(ready.Dir))
			}
		}
		for _, n := range nodes {
			n.cleanup(1 + job)
		}
	}
	close(stop)
	<-stopped
	t.Logf("%d jobs in place, %d removals", inPlace, removed)
	if inPlace == 0 || removed == 0 {
		t.Error("this shows nothing")
	}
	for _, n := range nodes {
		n.checkClean()
	}
}

// An image that is removed between opening it and leasing it is not used.
func TestClusterRemovedBeforeTheLease(t *testing.T) {
	if !privateMounts(t) {
		return
	}
	dir, reg := shared(t), newRegistry(t)
	image, digest := reg.push(t, "a/b:v1", "inside")
	n := newNodes(t, 1, dir, true)[0]
	n.prepare(request(1, image, digest))
	n.ready(request(1, image, digest))
	n.cleanup(1)
	d, err := store.ParseDigest(digest)
	must(t, err)
	c, err := n.cfg.Cluster.open(t.Context())
	must(t, err)
	src, err := c.Open(t.Context(), d)
	must(t, err)
	defer src.Close()
	w := &worker{cfg: n.cfg.Config, inPlace: c}
	must(t, w.leaseInPlace(t.Context(), src))
	must(t, c.Unlease(t.Context(), d))
	must(t, c.Remove(src.Image()))
	if err := w.leaseInPlace(t.Context(), src); !errors.Is(err, store.ErrUnusable) {
		t.Errorf("leased: %v", err)
	}
	n.prepare(request(2, image, digest))
	n.ready(request(2, image, digest))
	n.cleanup(2)
	n.checkClean()
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
	m := message(t, jobstate.Request{Job: "1", Image: "x"})
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
