package prolog

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berth-hpc/berth/imagecache/store"
	"github.com/berth-hpc/berth/prolog/jobstate"
)

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
		m := message(t, jobstate.Request{Job: "1", Image: "x"})
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
