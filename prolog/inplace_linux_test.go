package prolog

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
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
	nodes := newNodes(t, 2, dir, true)
	a, inPlace := &remover{}, 0
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
		if job == 0 { // whose nodes have it in place, with nobody against them
			a.start(t, dir, digest)
			eventually(t, "a removal is refused", func() bool { return a.refused.Load() > 0 })
		}
		for _, n := range nodes {
			n.cleanup(1 + job)
		}
	}
	eventually(t, "the image is removed", func() bool { return a.removed.Load() > 0 })
	a.stop()
	t.Logf("%d jobs in place, %d removals, %d refused", inPlace, a.removed.Load(), a.refused.Load())
	if inPlace < 2 {
		t.Error("not even the first two have it in place")
	}
	for _, n := range nodes {
		n.checkClean()
	}
}

// A remover is the admin of TestClusterUseAgainstRemoval.
type remover struct {
	removed, refused atomic.Int64
	stop             func()
}

// start removes the image of digest, as often as that is possible, until stop.
func (r *remover) start(t *testing.T, dir, digest string) {
	t.Helper()
	d, err := store.ParseDigest(digest)
	must(t, err)
	admin, err := ClusterConfig{Dir: dir, ClusterOptions: store.ClusterOptions{
		Host: "admin", Writer: true, Stale: 3 * time.Second, Lease: time.Hour, Patience: 10 * time.Second,
	}}.open(t.Context())
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	stopped := make(chan struct{})
	r.stop = sync.OnceFunc(func() { cancel(); <-stopped })
	t.Cleanup(r.stop)
	go func() {
		defer close(stopped)
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for ctx.Err() == nil {
			r.remove(admin, d)
			admin.Expunge(t.Context())
			<-tick.C
		}
	}()
}

func (r *remover) remove(admin *store.Cluster, d store.Digest) {
	im, err := admin.Get(d)
	if err != nil {
		return
	}
	var used *store.InUseError
	switch err := admin.Remove(im); {
	case errors.As(err, &used):
		r.refused.Add(1)
	case err == nil:
		r.removed.Add(1)
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
