package prolog

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/imagecache/store"
	"github.com/berth-hpc/berth/launcher"
	"github.com/berth-hpc/berth/prolog/jobstate"
)

// collect is what the stand-in for `berth gc` does.
func collect(ctx context.Context, cfg Config) error {
	st, err := store.OpenExisting(cfg.StoreDir)
	if err != nil {
		return err
	}
	removed, err := Space(cfg, st).Collect(ctx, store.Collection{})
	for _, r := range removed {
		fmt.Println(r.Reason, r.Digest)
	}
	return err
}

// random does not compress.
func random(bytes int, seed uint64) string {
	b := make([]byte, bytes)
	r := rand.New(rand.NewPCG(seed, 0))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return string(b)
}

// smallStore puts the node's store on a disk of so many bytes.
func (n *node) smallStore(bytes int) {
	n.t.Helper()
	must(n.t, os.MkdirAll(n.cfg.StoreDir, 0o755))
	must(n.t, unix.Mount("test", n.cfg.StoreDir, "tmpfs", 0, fmt.Sprintf("size=%d,mode=0755", bytes)))
	n.t.Cleanup(func() { _ = unix.Unmount(n.cfg.StoreDir, unix.MNT_DETACH) })
}

// pushNoise pushes images of so many bytes each.
func (r *testRegistry) pushNoise(t *testing.T, count, bytes int) (references, digests []string) {
	t.Helper()
	for i := range count {
		reference, digest := r.push(t, fmt.Sprintf("noise%d", i), random(bytes, uint64(i)))
		references, digests = append(references, reference), append(digests, digest)
	}
	return references, digests
}

func (n *node) has(digest string) bool {
	d, err := store.ParseDigest(digest)
	must(n.t, err)
	st, err := store.OpenExisting(n.cfg.StoreDir)
	must(n.t, err)
	_, err = st.Get(d)
	return err == nil
}

// TestPreparationMakesRoom: images of 1 MB on a disk of 4 MB. The longest
// unused make room, those of jobs and kept ones stay; when nothing may go the
// job is told, before a layer was asked for.
func TestPreparationMakesRoom(t *testing.T) {
	if !privateMounts(t) {
		return
	}
	n, reg := newNode(t), newRegistry(t)
	n.smallStore(4 << 20)
	images, digests := reg.pushNoise(t, 5, 1<<20)
	for i := range images {
		job := uint32(i + 1)
		r := request(job, images[i], digests[i])
		n.prepare(r)
		n.ready(r)
		if i != 1 { // job 2 goes on
			n.cleanup(job)
		}
	}
	if n.has(digests[0]) || !n.has(digests[1]) || !n.has(digests[4]) {
		t.Errorf("in the store: %v, %v, …, %v; want the first to be gone", n.has(digests[0]), n.has(digests[1]), n.has(digests[4]))
	}
	if mounted := n.mounted(); len(mounted) != 1 {
		t.Errorf("mounted: %v", mounted)
	}
	st, err := store.OpenExisting(n.cfg.StoreDir)
	must(t, err)
	held, err := st.List()
	must(t, err)
	for _, im := range held {
		must(t, st.Keep(im.Digest(), "", store.Keep{}))
	}
	blobs := reg.getBlobs.Load()
	image, digest := reg.push(t, "large", random(3<<20, 9))
	r := request(9, image, digest)
	n.prepare(r)
	_, err = n.outcome(r)
	if err == nil || fault.Of(err) != fault.Site || !strings.Contains(err.Error(), "make room in "+n.cfg.StoreDir) || fault.Remedy(err) == "" {
		t.Errorf("%v (%s)", err, fault.Remedy(err))
	}
	if got := reg.getBlobs.Load() - blobs; got != 1 { // the config
		t.Errorf("%d blobs were asked for", got)
	}
	if len(n.storeTmp()) > 0 {
		t.Errorf("left: %v", n.storeTmp())
	}
}

// TestLargestFile: what an image writes on a node is bounded.
func TestLargestFile(t *testing.T) {
	if !privateMounts(t) {
		return
	}
	n, reg := newNode(t), newRegistry(t)
	n.configure(func(c *testConfig) { c.MaxImage = 1 << 20 })
	image, digest := reg.push(t, "large", random(3<<20, 1))
	r := request(1, image, digest)
	n.prepare(r)
	if _, err := n.outcome(r); err == nil || fault.Of(err) != fault.Site || !strings.Contains(fault.Remedy(err), "store.max_image") {
		t.Errorf("%v (%s)", err, fault.Remedy(err))
	}
	if len(n.published()) > 0 || len(n.storeTmp()) > 0 {
		t.Errorf("left: %v %v", n.published(), n.storeTmp())
	}
	n.configure(func(c *testConfig) { c.MaxImage = 4 << 20 })
	r.Job = "2"
	n.prepare(r)
	n.ready(r)
}

// TestGrant: a fetcher asks once, for something, and only where it may write.
func TestGrant(t *testing.T) {
	yes := func(context.Context, int64) error { return nil }
	no := errors.New("no room")
	for _, test := range []struct {
		name  string
		f     fetcher
		bytes int64
		want  string
	}{
		{"granted", fetcher{reserve: yes}, 5, ""},
		{"nothing to write", fetcher{}, 5, "may not ask"},
		{"again", fetcher{reserve: yes, asked: true}, 5, "may not ask"},
		{"less than nothing", fetcher{reserve: yes}, -1, "may not ask"},
		{"no room", fetcher{reserve: func(context.Context, int64) error { return no }}, 5, "no room"},
	} {
		var answers strings.Builder
		err := test.f.grant(t.Context(), test.bytes, &answers)
		if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v", test.name, err)
		}
		if (answers.String() == goOn) != (err == nil) {
			t.Errorf("%s: answered %q", test.name, answers.String())
		}
		if errors.Is(err, no) != (test.f.refusal != nil) {
			t.Errorf("%s: refusal %v", test.name, test.f.refusal)
		}
	}
}

// TestCleanupMakesRoom: a disk that is short of space is looked after by a
// process of its own, once a job has ended.
func TestCleanupMakesRoom(t *testing.T) {
	if !privateMounts(t) {
		return
	}
	n, reg := newNode(t), newRegistry(t)
	n.smallStore(4 << 20)
	images, digests := reg.pushNoise(t, 2, 1<<20)
	for i := range 2 {
		r := request(uint32(i+1), images[i], digests[i])
		n.prepare(r)
		n.ready(r)
	}
	n.cleanup(1)
	if !n.has(digests[0]) {
		t.Error("removed without need")
	}
	n.configure(func(c *testConfig) { c.Limits = store.Limits{MinFree: 2500 << 10, Settings: "store."} })
	n.cleanup(2)
	eventually(t, "room is made", func() bool { return !n.has(digests[0]) })
	eventually(t, "it ends", func() bool { return len(n.processes()) == 0 })
	if !n.has(digests[1]) {
		t.Error("more went than had to")
	}
}

// TestMakeRoomAgainstJobs: jobs come and go while the store is emptied again
// and again. No image goes that a job has.
func TestMakeRoomAgainstJobs(t *testing.T) {
	if !privateMounts(t) {
		return
	}
	n, reg := newNode(t), newRegistry(t)
	image, digest := reg.push(t, "x", "content")
	first := request(1000, image, digest)
	n.prepare(first)
	n.ready(first)
	n.cleanup(1000)
	st, err := store.OpenExisting(n.cfg.StoreDir)
	must(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var all sync.WaitGroup
	removals := 0
	all.Go(func() {
		defer cancel()
		for ctx.Err() == nil && removals < 5 {
			removed, err := Space(n.cfg.Config, st).Collect(t.Context(), store.Collection{UnusedFor: time.Nanosecond})
			if err != nil {
				t.Error(err)
			}
			removals += len(removed)
		}
	})
	jobs := make([]int, 2)
	for i := range jobs {
		all.Go(func() {
			for ctx.Err() == nil {
				job := uint32(1 + i)
				r := request(job, image, digest)
				n.prepare(r)
				ready, err := n.outcome(r)
				if err != nil {
					t.Errorf("job %d: %v\n%s", job, err, n.log(r))
					return
				}
				if _, err := os.Stat(ready.Squashfs()); err != nil {
					t.Errorf("job %d has its image, but the store does not: %v", job, err)
				}
				jobs[i]++
				n.cleanup(job)
			}
		})
	}
	all.Wait()
	t.Logf("%v jobs, %d removals", jobs, removals)
	if removals < 5 {
		t.Errorf("%d removals: too few to mean anything", removals)
	}
}

// TestRepair: what was damaged is pulled again by the account.
func TestRepair(t *testing.T) {
	if !privateMounts(t) {
		return
	}
	n, reg := newNode(t), newRegistry(t)
	image, digest := reg.push(t, "x", "content")
	r := request(1, image, digest)
	n.prepare(r)
	n.ready(r)
	n.cleanup(1)
	st, err := store.OpenExisting(n.cfg.StoreDir)
	must(t, err)
	d, err := store.ParseDigest(digest)
	must(t, err)
	im, err := st.Get(d)
	must(t, err)
	must(t, os.WriteFile(im.Rootfs(), []byte("nonsense"), 0o444))
	if err := im.Verify(t.Context()); !errors.Is(err, store.ErrDamaged) {
		t.Fatal(err)
	}
	log := testLogger()
	if err := Repair(t.Context(), log, n.cfg.Config, im, nil); fault.Of(err) != fault.Site || err == nil {
		t.Errorf("without a name: %v", err)
	}
	must(t, Repair(t.Context(), log, n.cfg.Config, im, []string{reg.host + "/nowhere:1", image}))
	must(t, im.Verify(t.Context()))
	if len(n.storeTmp()) > 0 || len(n.mounted()) > 0 {
		t.Errorf("left: %v %v", n.storeTmp(), n.mounted())
	}
	if jobs, err := jobstate.Jobs(n.cfg.RunDir); err != nil || len(jobs) > 0 {
		t.Errorf("jobs %v, %v", jobs, err)
	}
	if left, _ := filepath.Glob("progress"); len(left) > 0 {
		t.Error("progress of no job was written")
	}
}

// TestRemovedBeforeTheLease: an image that makes room after a worker has found
// it, and before its job has the lease, is pulled again.
func TestRemovedBeforeTheLease(t *testing.T) {
	if !privateMounts(t) {
		return
	}
	n, reg := newNode(t), newRegistry(t)
	image, digest := reg.push(t, "x", "content")
	first := request(1, image, digest)
	n.prepare(first)
	n.ready(first)
	n.cleanup(1)
	path := filepath.Join(n.cfg.RunDir, "images.lock")
	lock, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	defer lock.Close()
	must(t, launcher.Flock(t.Context(), lock))

	n.configure(func(c *testConfig) { c.PrologWait = time.Millisecond })
	r := request(2, image+"@"+digest, "") // not pinned: a worker looks
	n.prepare(r)
	eventually(t, "the worker has found the image and waits for its lease", func() bool {
		w, err := n.folder(r).Worker()
		fds, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", w.PID))
		for _, fd := range fds {
			if name, _ := os.Readlink(fd); err == nil && name == path {
				return true
			}
		}
		return false
	})
	st, err := store.OpenExisting(n.cfg.StoreDir)
	must(t, err)
	d, err := store.ParseDigest(digest)
	must(t, err)
	im, err := st.Get(d)
	must(t, err)
	held, err := st.Lock(t.Context(), d, nil)
	must(t, err)
	must(t, errors.Join(held.Remove(im), held.Release()))
	must(t, lock.Close())
	n.ready(r)
	if state, err := n.folder(r).State(); err != nil || state.Hit {
		t.Errorf("%+v, %v; want no hit", state, err)
	}
}

// TestMountWithoutALease does not keep an image, nor its blocks on the disk.
func TestMountWithoutALease(t *testing.T) {
	if !privateMounts(t) {
		return
	}
	n, reg := newNode(t), newRegistry(t)
	image, digest := reg.push(t, "x", "content")
	r := request(1, image, digest)
	n.prepare(r)
	n.ready(r)
	must(t, os.RemoveAll(jobstate.JobDir(n.cfg.RunDir, "1")))
	st, err := store.OpenExisting(n.cfg.StoreDir)
	must(t, err)
	removed, err := Space(n.cfg.Config, st).Collect(t.Context(), store.Collection{UnusedFor: time.Nanosecond})
	if err != nil || len(removed) != 1 || len(n.mounted()) > 0 {
		t.Errorf("removed %v, %v; mounted %v", removed, err, n.mounted())
	}
	eventually(t, "the loop device goes", func() bool { return n.loops() == 0 })
}
