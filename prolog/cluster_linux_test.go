package prolog

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berth-hpc/berth/imagecache/store"
)

// shared is a folder that some nodes of a test share.
func shared(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "berth-cluster-")
	must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	must(t, os.Chmod(dir, 0o755))
	return dir
}

// newNodes makes nodes n1, n2, … that share dir.
func newNodes(t *testing.T, count int, dir string, mount bool) []*node {
	t.Helper()
	var all []*node
	for i := range count {
		n := newNode(t)
		n.configure(func(c *testConfig) {
			c.Cluster = ClusterConfig{Dir: dir, Mount: mount, ClusterOptions: store.ClusterOptions{
				Host: fmt.Sprintf("n%d", i+1), Writer: true, Stale: 3 * time.Second, Lease: time.Hour, Patience: 10 * time.Second,
			}}
		})
		all = append(all, n)
	}
	return all
}

// bothUses runs a test with copies and with images mounted in place.
func bothUses(t *testing.T, f func(t *testing.T, mount bool)) {
	t.Helper()
	for _, mount := range []bool{false, true} {
		t.Run(map[bool]string{false: "copy", true: "mount"}[mount], func(t *testing.T) { f(t, mount) })
	}
}

// clusterImages lists the images in dir, without their policy.
func clusterImages(dir string) []string {
	names, _ := filepath.Glob(filepath.Join(dir, "images", "sha256", "*"))
	return names
}

func clusterLeases(dir string) []string {
	names, _ := filepath.Glob(filepath.Join(dir, "leases", "*", "*"))
	return names
}

// checkShared fails if pulls and jobs that ended left anything.
func checkShared(t *testing.T, dir string) {
	t.Helper()
	for _, pattern := range []string{"tmp/*", "images/.new/*", "images/.removed/*", "locks/*", "locks/.*", "leases/*"} {
		if left, _ := filepath.Glob(filepath.Join(dir, pattern)); len(left) > 0 {
			t.Errorf("left: %q", left)
		}
	}
}

// Of many nodes and jobs that want an image at once, one node pulls it.
func TestClusterPullsOnce(t *testing.T) {
	if !privateMounts(t) {
		return
	}
	bothUses(t, func(t *testing.T, mount bool) {
		dir, reg := shared(t), newRegistry(t)
		image, digest := reg.push(t, "a/b:v1", "inside")
		nodes := newNodes(t, 4, dir, mount)
		var wg sync.WaitGroup
		for _, n := range nodes {
			for job := range uint32(2) {
				wg.Go(func() { n.prepare(request(1+job, image, digest)) })
			}
		}
		wg.Wait()
		for _, n := range nodes {
			for job := range uint32(2) {
				r := request(1+job, image, digest)
				if got := n.read(n.ready(r).Mount, "hello"); got != "inside" {
					t.Errorf("%s: the image says %q", n.cfg.Cluster.Host, got)
				}
			}
			if stored := len(n.published()); (stored == 0) != mount {
				t.Errorf("%s has %d images in its own store", n.cfg.Cluster.Host, stored)
			}
		}
		if got := reg.getBlobs.Load(); got != 2 { // the config and one layer
			t.Errorf("%d blobs transferred, want 2", got)
		}
		if got := len(clusterLeases(dir)); mount && got != 4 || !mount && got != 0 {
			t.Errorf("%d leases", got)
		}
		for _, n := range nodes {
			n.cleanup(1)
		}
		if got := len(clusterLeases(dir)); mount && got != 4 {
			t.Errorf("%d leases while a second job runs", got)
		}
		for _, n := range nodes {
			n.cleanup(2)
			n.checkClean()
		}
		checkShared(t, dir)
	})
}

// A later job, on a node that had no part in the pull, asks no registry; nor
// does one on a node that has it.
func TestClusterHit(t *testing.T) {
	if !privateMounts(t) {
		return
	}
	bothUses(t, func(t *testing.T, mount bool) {
		dir, reg := shared(t), newRegistry(t)
		image, digest := reg.push(t, "a/b:v1", "inside")
		nodes := newNodes(t, 2, dir, mount)
		nodes[0].prepare(request(1, image, digest))
		nodes[0].ready(request(1, image, digest))
		before := reg.requests.Load()
		for job := range uint32(3) {
			nodes[1].prepare(request(1+job, image, digest))
			ready := nodes[1].ready(request(1+job, image, digest))
			if _, err := os.Stat(ready.Config()); err != nil {
				t.Errorf("job %d: no config for its steps: %v", 1+job, err)
			}
			if _, err := os.Stat(ready.Squashfs()); err != nil && job < 2 {
				t.Errorf("job %d: no file for its steps: %v", 1+job, err)
			}
			if job == 1 {
				must(t, os.Rename(dir, dir+".away")) // the third finds all it needs on the node
			}
		}
		must(t, os.Rename(dir+".away", dir))
		if s, err := nodes[1].folder(request(3, image, digest)).State(); err != nil || !s.Hit {
			t.Errorf("third job: %+v, %v; want a hit", s, err)
		}
		if log := nodes[1].log(request(3, image, digest)); log != "" {
			t.Errorf("the third job had a worker: %s", log)
		}
		if made := reg.requests.Load() - before; made != 0 {
			t.Errorf("%d requests", made)
		}
		nodes[0].cleanup(1)
		for job := range uint32(3) {
			nodes[1].cleanup(1 + job)
		}
		nodes[1].checkClean()
		checkShared(t, dir)
	})
}

// A node that may not write waits for one that pulls, and pulls for itself
// when nobody does. It cannot lease, so it copies.
func TestClusterReaderNode(t *testing.T) {
	if !privateMounts(t) {
		return
	}
	bothUses(t, func(t *testing.T, mount bool) {
		dir, reg := shared(t), newRegistry(t)
		image, digest := reg.push(t, "a/b:v1", "inside")
		nodes := newNodes(t, 2, dir, mount)
		writer, reader := nodes[0], nodes[1]
		readOnly := filepath.Join(reader.dir, "readonly")
		must(t, os.Mkdir(readOnly, 0o755))
		must(t, unix.Mount(dir, readOnly, "", unix.MS_BIND, ""))
		t.Cleanup(func() { must(t, unix.Unmount(readOnly, unix.MNT_DETACH)) })
		must(t, unix.Mount("", readOnly, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""))
		reader.configure(func(c *testConfig) { c.Cluster.Writer, c.Cluster.Dir, c.PrologWait = false, readOnly, 0 })
		writer.configure(func(c *testConfig) { c.PrologWait = 0 })

		other, otherDigest := reg.push(t, "a/alone:v1", "alone")
		r := request(1, other, otherDigest)
		reader.prepare(r)
		if got := reader.read(reader.ready(r).Mount, "hello"); got != "alone" {
			t.Errorf("the image says %q", got)
		}
		if got := clusterImages(dir); len(got) != 0 {
			t.Errorf("a reader wrote %v", got)
		}

		before := reg.getBlobs.Load()
		reg.stall(isBlob)
		r = request(2, image, digest)
		writer.prepare(r)
		eventually(t, "the writer pulls", func() bool { return reg.getBlobs.Load() > before })
		reader.prepare(r)
		eventually(t, "the reader waits for it", func() bool {
			return strings.Contains(reader.folder(r).Progress(), "n1 is ")
		})
		reg.answer()
		for _, n := range nodes {
			if got := n.read(n.ready(r).Mount, "hello"); got != "inside" {
				t.Errorf("the image says %q", got)
			}
		}
		if got := reg.getBlobs.Load() - before; got != 2 {
			t.Errorf("%d blobs transferred, want 2", got)
		}
		if got := len(reader.published()); got != 2 {
			t.Errorf("%d images in the reader's store, want 2", got)
		}
		writer.cleanup(2)
		reader.cleanup(1)
		reader.cleanup(2)
		reader.checkClean()
		checkShared(t, dir)
	})
}

// What a tag means to the first node of a job, it means to all of its nodes,
// also when it moves meanwhile; another job takes it as it is then.
func TestClusterPinsJobs(t *testing.T) {
	if !privateMounts(t) {
		return
	}
	dir, reg := shared(t), newRegistry(t)
	image, first := reg.push(t, "a/b:v1", "first")
	nodes := newNodes(t, 3, dir, false)
	nodes[2].configure(func(c *testConfig) { c.Cluster.Writer = false })
	nodes[0].prepare(request(1, image, ""))
	_, second := reg.push(t, "a/b:v1", "second")
	for i, n := range nodes {
		n.prepare(request(1, image, ""))
		if ready := n.ready(request(1, image, "")); ready.Digest != first || !ready.Pinned {
			t.Errorf("node %d: %+v, want %s", i, ready, first)
		}
	}
	// A node that may not write says that it pinned nothing.
	for i, want := range map[int]bool{2: false, 1: true} {
		nodes[i].prepare(request(2, image, ""))
		if ready := nodes[i].ready(request(2, image, "")); ready.Digest != second || ready.Pinned != want {
			t.Errorf("second job, node %d: %+v, want %s, pinned %v", i, ready, second, want)
		}
	}
}

// kill -9 of the worker that pulls for all: another node takes over.
func TestClusterWorkerKilled(t *testing.T) {
	if !privateMounts(t) {
		return
	}
	bothUses(t, func(t *testing.T, mount bool) {
		dir, reg := shared(t), newRegistry(t)
		image, digest := reg.push(t, "a/b:v1", "inside")
		nodes := newNodes(t, 2, dir, mount)
		for _, n := range nodes {
			n.configure(func(c *testConfig) { c.PrologWait, c.Cluster.Stale = 0, time.Second })
		}
		reg.stall(isBlob)
		r := request(1, image, digest)
		nodes[0].prepare(r)
		eventually(t, "the first node pulls", func() bool { return reg.getBlobs.Load() > 0 })
		nodes[1].prepare(r)
		eventually(t, "the second waits", func() bool {
			return strings.HasSuffix(nodes[1].folder(r).Progress(), "/a/b:v1: n1 is preparing it")
		})
		nodes[0].kill9(r)
		reg.answer()
		nodes[1].ready(r)
		nodes[0].prepare(request(2, image, digest)) // the next on the node of the dead
		nodes[0].ready(request(2, image, digest))
		nodes[0].cleanup(1)
		nodes[0].cleanup(2)
		nodes[1].cleanup(1)
		nodes[0].checkClean()
		nodes[1].checkClean()
		checkShared(t, dir)
	})
}

// A job that is cancelled while its node pulls for all leaves the pull to
// another.
func TestClusterPullCancelled(t *testing.T) {
	if !privateMounts(t) {
		return
	}
	dir, reg := shared(t), newRegistry(t)
	image, digest := reg.push(t, "a/b:v1", "inside")
	nodes := newNodes(t, 2, dir, false)
	for _, n := range nodes {
		n.configure(func(c *testConfig) { c.PrologWait, c.Cluster.Stale = 0, time.Minute })
	}
	reg.stall(isBlob)
	r := request(1, image, digest)
	nodes[0].prepare(r)
	eventually(t, "the first node pulls", func() bool { return reg.getBlobs.Load() > 0 })
	nodes[1].prepare(r)
	eventually(t, "the second waits", func() bool { return strings.Contains(nodes[1].folder(r).Progress(), "n1 is ") })
	nodes[0].cleanup(1)
	reg.answer()
	nodes[1].ready(r)
	nodes[1].cleanup(1)
	nodes[1].checkClean()
	checkShared(t, dir)
}

// A registry that does not have the image is asked once or twice, not by every
// node, and its words reach every job.
func TestClusterFailureReachesAll(t *testing.T) {
	if !privateMounts(t) {
		return
	}
	dir, reg := shared(t), newRegistry(t)
	_, digest := reg.push(t, "a/b:v1", "inside")
	nodes := newNodes(t, 3, dir, false)
	for _, n := range nodes {
		r := request(1, reg.host+"/no/such:v1", digest)
		n.prepare(r)
		if _, err := n.outcome(r); err == nil || !strings.Contains(err.Error(), "404") {
			t.Errorf("%v", err)
		}
		n.cleanup(1)
		n.checkClean()
	}
}
