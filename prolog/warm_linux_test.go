package prolog

import (
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/imagecache"
	"github.com/berth-hpc/berth/imagecache/store"
	"github.com/berth-hpc/berth/policy"
	"github.com/berth-hpc/berth/prolog/jobstate"
)

// warm has an image warmed on n.
func (n *node) warm(image, digest string, r jobstate.Request) (Warmed, error) {
	n.t.Helper()
	d, err := store.ParseDigest(digest)
	must(n.t, err)
	cfg := n.cfg.Config
	cfg.users = n.cfg.user
	return Warm(n.t.Context(), logrus.New(), cfg, Warming{Image: image, Digest: d, For: r, Keep: &store.Keep{Until: time.Now().Add(time.Hour)}})
}

// TestWarm: what an administrator lists is pulled once, by the account, kept, and
// there for jobs; no rule about users keeps it out.
func TestWarm(t *testing.T) {
	if !privateMounts(t) {
		return
	}
	n, reg := newNode(t), newRegistry(t)
	image, digest := reg.push(t, "a/b:v1", "inside")
	n.policy(policy.Policy{Deny: true, ReadOnly: true, ReadOnlyFrom: "/x.toml"})
	cfg := n.cfg.Config
	d, err := Digested(t.Context(), logrus.New(), cfg, Warming{Image: image})
	if err != nil || d.String() != digest {
		t.Fatal(d, err)
	}
	for _, hit := range []bool{false, true} {
		got, err := n.warm(image, digest, jobstate.Request{})
		if err != nil || got.Hit != hit {
			t.Fatalf("%+v, %v", got, err)
		}
	}
	if blobs := reg.getBlobs.Load(); blobs != 2 { // the config and a layer
		t.Errorf("%d blobs were asked for", blobs)
	}
	st, err := store.OpenExisting(n.cfg.StoreDir)
	must(t, err)
	im, err := st.Get(d)
	must(t, err)
	if k := st.Kept(im); k == nil || len(st.Holders(im)) != 1 {
		t.Errorf("kept %v by %v", k, st.Holders(im))
	}
	if m := n.mounted(); len(m) != 0 {
		t.Errorf("mounted: %q", m)
	}
	n.policy(policy.Policy{})
	requests := reg.requests.Load()
	n.runs(jobOf(alice, 1, image, digest), "inside")
	if asked := reg.requests.Load() - requests; asked != 0 {
		t.Errorf("the job asked the registry %d times", asked)
	}
}

// TestWarmForAJob: on behalf of a job that waits, the policy judges its user,
// nobody's login is used, and somebody's private image gains nothing.
func TestWarmForAJob(t *testing.T) {
	if !privateMounts(t) {
		return
	}
	n, reg := newNode(t), newClosedRegistry(t, false)
	image, digest := reg.push(t, "alice/tool:1", "alice's")
	n.policy(policy.Policy{Rules: []policy.Rule{rule("not bob", "*", func(r *policy.Rule) { r.Deny, r.Users = true, []string{"64126"} })}})
	reg.users.Lock()
	n.people(reg.host)
	// Alice could; but nobody waits.
	_, err := n.warm(image, digest, jobOf(alice, 1, image, digest))
	if err == nil || fault.Of(err) != fault.User || len(n.published()) != 0 {
		t.Errorf("%v, published %q", err, n.published())
	}
	n.runs(jobOf(alice, 2, image, digest), "alice's")
	file, err := os.Stat(n.ready(jobOf(alice, 2, image, digest)).Squashfs())
	must(t, err)
	old := file.ModTime().Add(-time.Hour)
	must(t, os.Chtimes(n.ready(jobOf(alice, 2, image, digest)).Squashfs(), old, old))
	requests := reg.requests.Load()
	if _, err := n.warm(image, digest, jobOf(alice, 3, image, digest)); err != nil {
		t.Error(err)
	}
	if file, err = os.Stat(n.ready(jobOf(alice, 2, image, digest)).Squashfs()); err != nil || !file.ModTime().Equal(old) {
		t.Errorf("a private image counts as used: %v, %v", file.ModTime(), err)
	}
	st, err := store.OpenExisting(n.cfg.StoreDir)
	must(t, err)
	d, err := store.ParseDigest(digest)
	must(t, err)
	if im, err := st.Get(d); err != nil || st.Kept(im) != nil {
		t.Errorf("a private image is kept: %v, %v", st.Kept(im), err)
	}
	before := reg.requests.Load()
	if before != requests {
		t.Errorf("the registry was asked %d times for what is at hand", before-requests)
	}
	if _, err := n.warm(image, digest, jobOf(64126, 4, image, digest)); err == nil || !strings.Contains(err.Error(), `rule "not bob"`) {
		t.Errorf("against the policy: %v", err)
	}
	cfg := n.cfg.Config
	if _, err := Digested(t.Context(), logrus.New(), cfg, Warming{Image: image, For: jobOf(64126, 4, image, "")}); err == nil || !strings.Contains(err.Error(), `rule "not bob"`) {
		t.Errorf("the registry is asked against the policy: %v", err)
	}
	if asked := reg.requests.Load() - before; asked != 0 {
		t.Errorf("the registry was asked %d times", asked)
	}
}

// TestWarmGivesWay: a job does not wait for a transfer that a rate holds back.
func TestWarmGivesWay(t *testing.T) {
	if !privateMounts(t) {
		return
	}
	n, reg := newNode(t), newRegistry(t)
	images, digests := reg.pushNoise(t, 1, 4<<20)
	d, err := store.ParseDigest(digests[0])
	must(t, err)
	began, once := make(chan struct{}), sync.Once{}
	warmed := make(chan error, 1)
	go func() {
		_, err := Warm(t.Context(), logrus.New(), n.cfg.Config, Warming{
			Image: images[0], Digest: d, Rate: 1000, // an hour
			Progress: func(p imagecache.Progress) {
				if p.Phase == imagecache.PhasePull && p.Done > 0 {
					once.Do(func() { close(began) })
				}
			},
		})
		warmed <- err
	}()
	select {
	case <-began:
	case err := <-warmed:
		t.Fatal("it ended before it began", err)
	}
	n.prepare(jobOf(alice, 1, images[0], digests[0])) // waits for PrologWait, half a minute
	if _, err := n.outcome(jobOf(alice, 1, images[0], digests[0])); err != nil {
		t.Fatal(err)
	}
	if err := <-warmed; err != nil {
		t.Error(err)
	}
}
