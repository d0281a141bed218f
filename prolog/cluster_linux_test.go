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
	"github.com/berth-hpc/berth/prolog/jobstate"
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

// No state of the shared file system fails a job: it goes on without.
func TestClusterIsNoCondition(t *testing.T) {
	if !privateMounts(t) {
		return
	}
	tmpfs := func(t *testing.T, dir, options string) {
		t.Helper()
		must(t, unix.Mount("berth-test", dir, "tmpfs", 0, options))
		t.Cleanup(func() { must(t, unix.Unmount(dir, unix.MNT_DETACH)) })
		must(t, os.Chmod(dir, 0o755))
	}
	for _, tc := range []struct {
		name string
		make func(t *testing.T, dir string)
		says string // in the log of the worker
	}{
		{"missing", func(t *testing.T, dir string) { must(t, os.Remove(dir)) }, "no such file"},
		{"writable by all", func(t *testing.T, dir string) { must(t, os.Chmod(dir, 0o777)) }, "written by others"},
		{"a file", func(t *testing.T, dir string) { must(t, os.Remove(dir)); must(t, os.WriteFile(dir, nil, 0o644)) }, "not a directory"},
		{"read-only and empty", func(t *testing.T, dir string) {
			tmpfs(t, dir, "")
			must(t, unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
		}, "read-only"},
		{"full from the start", func(t *testing.T, dir string) { tmpfs(t, dir, "nr_inodes=2") }, "no space"},
		{"full for the image", func(t *testing.T, dir string) { tmpfs(t, dir, "size=32k") }, "no space"},
		{"locks that cannot be written", func(t *testing.T, dir string) {
			tmpfs(t, dir, "")
			must(t, os.MkdirAll(filepath.Join(dir, "leases"), 0o755))
		}, "no such file"},
	} {
		bothUses(t, func(t *testing.T, mount bool) {
			t.Run(tc.name, func(t *testing.T) {
				dir, reg := shared(t), newRegistry(t)
				tc.make(t, dir)
				image, digest := reg.push(t, "a/b:v1", noise(100000))
				n := newNodes(t, 1, dir, mount)[0]
				r := request(1, image, digest)
				n.prepare(r)
				if got := n.read(n.ready(r).Mount, "hello"); !strings.HasPrefix(got, noise(100)) {
					t.Errorf("the image says %q", got)
				}
				if !strings.Contains(n.log(r), tc.says) {
					t.Errorf("the log does not say %q: %s", tc.says, n.log(r))
				}
				if len(n.published()) != 1 {
					t.Errorf("%d images in the node's store", len(n.published()))
				}
				n.cleanup(1)
				n.checkClean()
			})
		})
	}
}

// A shared file system that hangs costs jobs, their prologs and their epilogs
// a bounded time.
func TestClusterHangs(t *testing.T) {
	if !privateMounts(t) {
		return
	}
	bothUses(t, func(t *testing.T, mount bool) {
		dir, reg := shared(t), newRegistry(t)
		image, digest := reg.push(t, "a/b:v1", "inside")
		n := newNodes(t, 1, dir, mount)[0]
		n.configure(func(c *testConfig) { c.Cluster.Patience = 300 * time.Millisecond })
		first := request(1, image, digest)
		n.prepare(first)
		n.ready(first)
		hang(t, dir)
		other, otherDigest := reg.push(t, "a/c:v1", "other")
		began := time.Now()
		r := request(2, other, otherDigest)
		n.prepare(r)
		if got := n.read(n.ready(r).Mount, "hello"); got != "other" {
			t.Errorf("the image says %q", got)
		}
		if !strings.Contains(n.log(r), "no answer within 300ms") {
			t.Errorf("the log says %s", n.log(r))
		}
		m := message(t, jobstate.Request{Job: 1, Image: "x"})
		err := Cleanup(t.Context(), n.cfg.Config, strings.NewReader(string(m)))
		if (err != nil) != mount {
			t.Errorf("cleaning up: %v", err)
		}
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("it took %s", took)
		}
		must(t, unix.Unmount(dir, unix.MNT_DETACH))
		n.cleanup(1)
		n.cleanup(2)
		n.checkClean()
		checkShared(t, dir)
	})
}

// hang mounts a file system on dir whose server never answers: nobody reads
// the requests of this FUSE.
func hang(t *testing.T, dir string) {
	t.Helper()
	fuse, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	must(t, err)
	t.Cleanup(func() { _ = fuse.Close() }) // ends what still hangs
	options := fmt.Sprintf("fd=%d,rootmode=40755,user_id=0,group_id=0,allow_other", fuse.Fd())
	must(t, unix.Mount("berth-test", dir, "fuse", unix.MS_NOSUID|unix.MS_NODEV, options))
}

// noise does not compress.
func noise(n int) string {
	out, seed := make([]byte, n), uint32(1)
	for i := range out {
		seed = seed*1664525 + 1013904223
		out[i] = 'a' + byte(seed>>27)%26
	}
	return string(out)
}

// What lies in the shared folder is damaged, or somebody else's.
func TestClusterHostile(t *testing.T) {
	if !privateMounts(t) {
		return
	}
	for _, tc := range []struct {
		name     string
		tamper   func(rootfs string) error
		repaired bool // pulled again for all
	}{
		{"nonsense", func(p string) error { return rewrite(p, nonsense) }, true},
		{"cut short", func(p string) error { return os.Truncate(p, 100) }, true},
		{"another owner", func(p string) error { return os.Chown(p, 1000, 1000) }, false},
		{"a second name", func(p string) error { return os.Link(p, filepath.Dir(p)+"/../again") }, false},
		{"a link", func(p string) error {
			must(t, os.Rename(p, p+".x"))
			return os.Symlink(p+".x", p)
		}, false},
		{"writable", func(p string) error { return os.Chmod(p, 0o666) }, false},
	} {
		bothUses(t, func(t *testing.T, mount bool) {
			t.Run(tc.name, func(t *testing.T) {
				dir, reg := shared(t), newRegistry(t)
				image, digest := reg.push(t, "a/b:v1", "inside")
				nodes := newNodes(t, 3, dir, mount)
				nodes[0].prepare(request(1, image, digest))
				nodes[0].ready(request(1, image, digest))
				nodes[0].cleanup(1)
				must(t, tc.tamper(filepath.Join(clusterImages(dir)[0], store.RootfsName)))
				before := reg.getBlobs.Load()
				for _, n := range nodes[1:] {
					r := request(1, image, digest)
					n.prepare(r)
					if got := n.read(n.ready(r).Mount, "hello"); got != "inside" {
						t.Errorf("the image says %q", got)
					}
				}
				want := int64(4) // both for themselves
				if tc.repaired {
					want = 2
				}
				if mount && tc.name == "nonsense" {
					want = 4 // the first for itself and, as it set it aside, the second for all
				}
				if got := reg.getBlobs.Load() - before; got != want {
					t.Errorf("%d blobs transferred, want %d", got, want)
				}
				for _, n := range nodes[1:] {
					n.cleanup(1)
					n.checkClean()
				}
			})
		})
	}
}

func rewrite(path string, change func([]byte) []byte) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return os.WriteFile(path, change(data), 0o444)
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
