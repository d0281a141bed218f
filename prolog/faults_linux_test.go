package prolog

import (
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/imagecache/store"
	"github.com/berth-hpc/berth/testdata/faultfs"
)

// faultyNode is a node whose store is on a file system that fails on demand.
type faultyNode struct {
	*node
	fs    *faultfs.FS
	image string
	want  string // the image's digest
	job   uint32
}

func newFaultyNode(t *testing.T) *faultyNode {
	t.Helper()
	fs := faultfs.Mount(t) // before the node, whose end needs it
	n := &faultyNode{node: newNode(t), fs: fs}
	n.configure(func(c *testConfig) { c.StoreDir = filepath.Join(fs.Dir(), "store") })
	n.image, n.want = newRegistry(t).push(t, "a/b:v1", "inside")
	return n
}

// next prepares the image for another job and returns the outcome.
func (n *faultyNode) next() error {
	n.job++
	r := request(n.job, n.image, n.want)
	n.prepare(r)
	_, err := n.outcome(r)
	return err
}

// check wants nothing half done, then a preparation that works and leaves
// nothing, and takes all of it back.
func (n *faultyNode) check(t *testing.T) {
	t.Helper()
	n.fs.Heal()
	n.checkVisible(t, n.cfg.StoreDir)
	if err := n.next(); err != nil {
		t.Errorf("the next: %v", err)
	}
	if got := n.checkVisible(t, n.cfg.StoreDir); got != 1 {
		t.Errorf("afterwards the store has %d images", got)
	}
	for job := range n.job {
		n.cleanup(job + 1)
	}
	sweep(t, n.cfg.StoreDir)
	n.checkClean()
	n.job = 0
	n.fs.Reset()
}

// sweep does what the next pull of any image does.
func sweep(t *testing.T, dir string) {
	t.Helper()
	s, err := store.Open(dir)
	must(t, err)
	d, err := store.ParseDigest("sha256:" + strings.Repeat("0", 64))
	must(t, err)
	l, err := s.Lock(t.Context(), d, nil)
	must(t, err)
	must(t, l.Release())
}

// checkVisible wants every image in the store to be whole, and counts them.
func (n *faultyNode) checkVisible(t *testing.T, dir string) int {
	t.Helper()
	s, err := store.Open(dir)
	must(t, err)
	images, err := s.List()
	must(t, err)
	for _, im := range images {
		if err := im.Verify(t.Context()); err != nil {
			t.Errorf("visible, but: %v", err)
		}
		if m, err := im.Manifest(); err != nil || m.Digest.String() != n.want {
			t.Errorf("visible, but: %+v, %v", m, err)
		}
	}
	return len(images)
}

// record prepares the image once, without faults, and returns what that did to
// the store.
func (n *faultyNode) record(t *testing.T) []faultfs.Op {
	t.Helper()
	n.fs.Settle()
	must(t, n.next())
	ops := n.fs.Ops()
	n.check(t)
	return ops
}

// TestFaultsOfPrepare lets a node lose power after each operation that a
// preparation does to the store, by root and by the account that pulls; fills
// its disk, breaks it, and kills the worker after some of them.
// TestFaultsOfPublish, of the store, does the latter at each.
func TestFaultsOfPrepare(t *testing.T) {
	if !privateMounts(t) {
		return
	}
	n := newFaultyNode(t)
	ops := n.record(t)
	t.Run("power cut", func(t *testing.T) {
		must(t, n.next())
		for i := range n.fs.Ops() {
			n.powerCut(t, i+1)
		}
		n.check(t)
	})
	t.Run("killed", func(t *testing.T) {
		for i := 0; i < len(ops); i += 3 {
			t.Run("after "+ops[i].String(), func(t *testing.T) { n.killed(t, i+1) })
		}
	})
	for name, at := range map[string]func(int) faultfs.Fault{"full": faultfs.Full, "I/O error": faultfs.IOError} {
		t.Run(name, func(t *testing.T) {
			for i := 1; i < len(ops); i += 5 {
				t.Run("at "+ops[i].String(), func(t *testing.T) { n.failing(t, at(i+1)) })
			}
		})
	}
}

// powerCut looks at the disks that may be left after so many operations.
func (n *faultyNode) powerCut(t *testing.T, ops int) {
	t.Helper()
	for _, s := range faultfs.Survivals(uint64(ops), 2) {
		dir := filepath.Join(t.TempDir(), "disk")
		must(t, n.fs.Disk(ops, s, dir))
		n.checkVisible(t, filepath.Join(dir, "store"))
		sweep(t, filepath.Join(dir, "store"))
		for _, left := range []string{"tmp/*", "images/.new/*"} {
			if found, _ := filepath.Glob(filepath.Join(dir, "store", left)); len(found) > 0 {
				t.Errorf("after %d operations, %v: left %q", ops, s, found)
			}
		}
	}
}

func (n *faultyNode) killed(t *testing.T, ops int) {
	t.Helper()
	folder := n.folder(request(n.job+1, n.image, n.want))
	killed := make(chan error, 1)
	n.fs.Plan(faultfs.Kill(ops, func(int) {
		w, err := folder.Worker()
		if err == nil {
			err = unix.Kill(w.PID, unix.SIGKILL)
		}
		killed <- err
	}))
	outcome := n.next() // near its end the worker may have been faster
	eventually(t, "its processes end", func() bool { return len(n.processes()) == 0 })
	select {
	case err := <-killed:
		must(t, err)
	default:
		t.Errorf("was not killed: %v", outcome)
	}
	n.check(t)
}

func (n *faultyNode) failing(t *testing.T, f faultfs.Fault) {
	t.Helper()
	n.fs.Plan(f)
	if err := n.next(); err != nil && (fault.Of(err) != fault.Site || fault.Remedy(err) == "") {
		t.Errorf("blame %v, remedy %q: %v", fault.Of(err), fault.Remedy(err), err)
	}
	n.check(t)
}
