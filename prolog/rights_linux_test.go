package prolog

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/imagecache"
	"github.com/berth-hpc/berth/imagecache/credentials"
	"github.com/berth-hpc/berth/imagecache/store"
	"github.com/berth-hpc/berth/policy"
	"github.com/berth-hpc/berth/prolog/jobstate"
	"github.com/berth-hpc/berth/testdata/registry/server"
)

// Two users of these tests, and what only they know.
const (
	alice, bob                = 64131, 64132
	alicePassword, bobPassord = "al1ce-s3cret", "b0b-s3cret"
)

// A closedRegistry lets its users at what is theirs, and everybody at what is
// below open.
type closedRegistry struct {
	*testRegistry
	users *server.Users
	open  atomic.Value // string
	down  atomic.Bool
}

func newClosedRegistry(t *testing.T, tokens bool) *closedRegistry {
	t.Helper()
	c := &closedRegistry{testRegistry: &testRegistry{release: make(chan struct{})}}
	c.open.Store("public/")
	c.users = &server.Users{Tokens: tokens, Passwords: map[string]string{"alice": alicePassword, "bob": bobPassord}}
	reg, err := server.New(server.Options{})
	must(t, err)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		c.requests.Add(1)
		if isBlob(req) {
			c.getBlobs.Add(1)
		}
		c.waitWhileStalled(req)
		switch {
		case c.down.Load():
			w.WriteHeader(http.StatusNotImplemented)
		case strings.HasPrefix(req.URL.Path, "/v2/"+c.open.Load().(string)):
			reg.ServeHTTP(w, req)
		default:
			c.users.Wrap(reg).ServeHTTP(w, req)
		}
	}))
	t.Cleanup(s.Close)
	t.Cleanup(c.answer)
	c.host = strings.TrimPrefix(s.URL, "http://")
	return c
}

func (r *testRegistry) waitWhileStalled(req *http.Request) {
	r.mu.Lock()
	hang, release := r.hang != nil && r.hang(req), r.release
	r.mu.Unlock()
	if hang {
		select {
		case <-release:
		case <-req.Context().Done():
		}
	}
}

// people gives alice and bob homes with their logins on n.
func (n *node) people(hosts ...string) {
	n.t.Helper()
	homes := map[uint32]string{alice: filepath.Join(n.dir, "alice"), bob: filepath.Join(n.dir, "bob")}
	n.logIn(homes[alice], alice, "alice", alicePassword, hosts...)
	n.logIn(homes[bob], bob, "bob", bobPassord, hosts...)
	n.configure(func(c *testConfig) { c.Homes = homes })
}

func (n *node) logIn(home string, uid uint32, name, password string, hosts ...string) {
	n.t.Helper()
	var entries []string
	for _, host := range hosts {
		auth := base64.StdEncoding.EncodeToString([]byte(name + ":" + password))
		entries = append(entries, fmt.Sprintf("%q: {%q: %q}", host, "auth", auth))
	}
	must(n.t, os.MkdirAll(filepath.Join(home, ".docker"), 0o700))
	must(n.t, os.WriteFile(filepath.Join(home, ".docker", "config.json"), []byte(`{"auths": {`+strings.Join(entries, ",")+`}}`), 0o600))
	if out, err := exec.Command("chown", "-R", fmt.Sprintf("%d:%d", uid, uid), home).CombinedOutput(); err != nil {
		n.t.Fatalf("%v: %s", err, out)
	}
}

func jobOf(uid, job uint32, image, digest string) jobstate.Request {
	return jobstate.Request{Job: jobstate.JobID(fmt.Sprint(job)), UID: uid, GID: uid, Image: image, Digest: digest}
}

// runs has n prepare r and wants the image's content.
func (n *node) runs(r jobstate.Request, content string) {
	n.t.Helper()
	n.prepare(r)
	if got := n.read(n.ready(r).Mount, "hello"); got != content {
		n.t.Errorf("uid %d: the image says %q, want %q", r.UID, got, content)
	}
}

// refuses has n prepare r and wants it to fail; it returns what the user sees.
func (n *node) refuses(r jobstate.Request) string {
	n.t.Helper()
	n.prepare(r)
	ready, err := n.outcome(r)
	if err == nil {
		n.t.Fatalf("uid %d got %+v for %s %s\n%s", r.UID, ready, r.Image, r.Digest, n.log(r))
	}
	if leases, _ := filepath.Glob(filepath.Join(jobstate.JobDir(n.cfg.RunDir, r.Job), "leases", "*")); len(leases) > 0 {
		n.t.Errorf("a refused job has leases: %q", leases)
	}
	return strings.ReplaceAll(fmt.Sprintf("%v (%v): %s", err, fault.Of(err), fault.Remedy(err)), n.dir, "NODE")
}

func bothSchemes(t *testing.T, f func(t *testing.T, reg *closedRegistry)) {
	t.Helper()
	for name, tokens := range map[string]bool{"basic": false, "token": true} {
		t.Run(name, func(t *testing.T) { f(t, newClosedRegistry(t, tokens)) })
	}
}

// A private image comes by the login in the user's home, lies where nobody but
// root can see it, and costs its owner no request while the grant holds.
func TestPrivateImage(t *testing.T) {
	if !privateMounts(t) {
		return
	}
	bothSchemes(t, func(t *testing.T, reg *closedRegistry) {
		n := newNode(t)
		image, digest := reg.push(t, "alice/tool:1", "alice's")
		reg.users.Lock()
		n.people(reg.host)
		n.runs(jobOf(alice, 1, image, ""), "alice's")
		info, err := os.Stat(n.published()[0])
		must(t, err)
		if info.Mode().Perm() != 0o700 {
			t.Errorf("the folder of a private image has mode %v", info.Mode())
		}
		before := reg.requests.Load()
		for job, name := range []string{image, image + "@" + digest} {
			pinned := jobOf(alice, uint32(2+job), name, digest)
			n.runs(pinned, "alice's")
			if s, err := n.folder(pinned).State(); err != nil || !s.Hit {
				t.Errorf("%+v, %v", s, err)
			}
		}
		if made := reg.requests.Load() - before; made != 0 {
			t.Errorf("%d requests while the grant holds", made)
		}
		if grants, _ := filepath.Glob(filepath.Join(n.cfg.StoreDir, "grants", fmt.Sprint(alice), "*.json")); len(grants) != 1 {
			t.Errorf("grants: %q", grants)
		}
		if mode := modeOf(t, filepath.Join(n.cfg.StoreDir, "grants", fmt.Sprint(alice))); mode != 0o700 {
			t.Errorf("grants have mode %v", mode)
		}
	})
}

func modeOf(t *testing.T, path string) os.FileMode {
	t.Helper()
	info, err := os.Stat(path)
	must(t, err)
	return info.Mode().Perm()
}

// An attack is a job of bob's for alice's image.
type attack struct{ name, image, digest string }

func attacks(t *testing.T, reg *closedRegistry, image, digest string) []attack {
	t.Helper()
	fake := newRegistry(t)
	fake.push(t, "mine:1", "alice's") // the same manifest
	fake.without(isBlob)
	bare := strings.TrimSuffix(image, ":1")
	return []attack{
		{"by tag", image, ""},
		{"by tag and digest", image, digest},
		{"by digest", bare + "@" + digest, ""},
		{"by digest, pinned", bare + "@" + digest, digest},
		{"as alice", "alice@" + image, digest},
		{"as themself", "bob@" + image, digest},
		{"a repository of theirs", reg.host + "/bob/own:1", digest},
		{"a repository that is not", reg.host + "/bob/none:1", digest},
		{"their own registry, without layers", fake.host + "/mine:1", digest},
		{"their own registry, by digest", fake.host + "/mine@" + digest, ""},
		{"a folder", "oci:/tmp", digest},
	}
}

// without makes requests fail as if there were no such thing.
func (r *testRegistry) without(which func(*http.Request) bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.missing = which
}

// A scene is alice's image in a registry, and three nodes: has has the image,
// never has not, but shares a cluster's store with has where there is one, and
// fresh has seen nothing.
type scene struct {
	reg               *closedRegistry
	image, digest     string
	has, never, fresh *node
}

// scenes plays f on nodes by themselves, and with both kinds of a cluster's store.
func scenes(t *testing.T, f func(t *testing.T, s scene)) {
	t.Helper()
	if !privateMounts(t) {
		return
	}
	for _, where := range []string{"node", "cluster, copied", "cluster, in place"} {
		t.Run(where, func(t *testing.T) {
			s := scene{reg: newClosedRegistry(t, true), has: newNode(t), never: newNode(t), fresh: newNode(t)}
			s.image, s.digest = s.reg.push(t, "alice/tool:1", "alice's")
			s.reg.push(t, "bob/own:1", "bob's")
			s.reg.users.Lock()
			if where != "node" {
				both := newNodes(t, 2, shared(t), where == "cluster, in place")
				s.has, s.never = both[0], both[1]
			}
			for _, n := range s.nodes() {
				n.people(s.reg.host)
			}
			s.has.runs(jobOf(alice, 1, s.image, ""), "alice's")
			f(t, s)
		})
	}
}

func (s scene) nodes() []*node { return []*node{s.has, s.never, s.fresh} }

// attack has bob do his worst, in jobs from first on: wherever the image is, he
// hears what he hears where it is not.
func (s scene) attack(t *testing.T, first int) {
	t.Helper()
	for i, a := range attacks(t, s.reg, s.image, s.digest) {
		r := jobOf(bob, uint32(first+i), a.image, a.digest)
		want := s.fresh.refuses(r)
		for _, n := range []*node{s.has, s.never} {
			if got := n.refuses(r); got != want {
				t.Errorf("%s: got\n\t%s, want\n\t%s", a.name, got, want)
			}
		}
	}
}

// Whatever bob names, the node tells him what the registry tells him: the same
// as a node that never saw alice's image.
func TestStrangersGetTheRegistrysAnswer(t *testing.T) {
	scenes(t, func(t *testing.T, s scene) {
		s.attack(t, 10)
		s.has.runs(jobOf(alice, 2, s.image, s.digest), "alice's")
		s.never.runs(jobOf(alice, 3, s.image, s.digest), "alice's")
	})
}

// A node that pulls nothing says the same of alice's image and of none, also
// while the registry does not answer; what its users can use it does not deny.
func TestReadOnlyNodesTellNothing(t *testing.T) {
	scenes(t, func(t *testing.T, s scene) {
		for _, n := range s.nodes() {
			n.policy(policy.Policy{ReadOnly: true, ReadOnlyFrom: "/x.toml"})
		}
		s.attack(t, 10)
		s.reg.down.Store(true)
		s.attack(t, 110)
		s.reg.down.Store(false)
		s.has.runs(jobOf(alice, 2, s.image, s.digest), "alice's")
	})
}

// The number of alice's job, and her preparation in it, is of no use to bob.
func TestPreparationsAreOneUsers(t *testing.T) {
	if !privateMounts(t) {
		return
	}
	n, reg := newNode(t), newClosedRegistry(t, false)
	image, digest := reg.push(t, "alice/tool:1", "alice's")
	reg.users.Lock()
	n.people(reg.host)
	n.runs(jobOf(alice, 1, image, digest), "alice's")
	n.prepare(jobOf(bob, 1, image, digest))
	if ready, err := n.outcome(jobOf(bob, 1, image, digest)); err == nil {
		t.Errorf("bob got %+v", ready)
	}
}

// Bob waits for the pull of alice's image, and gets no more for that.
func TestWaitingGivesNoRights(t *testing.T) {
	if !privateMounts(t) {
		return
	}
	n, reg := newNode(t), newClosedRegistry(t, true)
	n.configure(func(c *testConfig) { c.PrologWait = 0 })
	image, digest := reg.push(t, "alice/tool:1", "alice's")
	reg.users.Lock()
	n.people(reg.host)
	reg.stall(isBlob)
	first, second := jobOf(alice, 1, image, digest), jobOf(bob, 2, image, digest)
	n.prepare(first)
	eventually(t, "alice's job pulls", func() bool { return reg.getBlobs.Load() > 0 })
	n.prepare(second)
	eventually(t, "bob's waits for it", func() bool { return strings.HasPrefix(n.folder(second).Progress(), "waiting") })
	reg.answer()
	n.ready(first)
	if ready, err := n.outcome(second); err == nil || !strings.Contains(err.Error(), "403") {
		t.Errorf("bob got %+v, %v", ready, err)
	}
}

// Alice's node waits for bob's, which is refused: that is bob's answer alone.
func TestRefusalIsOneUsers(t *testing.T) {
	if !privateMounts(t) {
		return
	}
	reg := newClosedRegistry(t, true)
	image, digest := reg.push(t, "alice/tool:1", "alice's")
	reg.users.Lock()
	nodes := newNodes(t, 2, shared(t), false)
	for _, n := range nodes {
		n.people(reg.host)
		n.configure(func(c *testConfig) { c.PrologWait = 0 })
	}
	reg.stall(isManifest)
	asked := reg.requests.Load()
	first, second := jobOf(bob, 1, image, digest), jobOf(alice, 2, image, digest)
	nodes[0].prepare(first)
	eventually(t, "bob's node asks", func() bool { return reg.requests.Load() > asked })
	nodes[1].prepare(second)
	eventually(t, "alice's waits for it", func() bool { return strings.HasPrefix(nodes[1].folder(second).Progress(), "waiting") })
	reg.answer()
	if ready, err := nodes[0].outcome(first); err == nil {
		t.Errorf("bob got %+v", ready)
	}
	nodes[1].ready(second)
}

// Who may read the same repository shows the manifest's digest with a login of
// their own; nothing is transferred again.
func TestColleague(t *testing.T) {
	if !privateMounts(t) {
		return
	}
	n, reg := newNode(t), newClosedRegistry(t, true)
	image, digest := reg.push(t, "shared/tool:1", "ours")
	reg.users.Lock()
	n.people(reg.host)
	n.runs(jobOf(alice, 1, image, digest), "ours")
	blobs := reg.getBlobs.Load()
	n.runs(jobOf(bob, 2, image, digest), "ours")
	if made := reg.getBlobs.Load() - blobs; made != 0 {
		t.Errorf("%d blobs were transferred again", made)
	}
}

// A repository that the store does not know counts once every blob came from
// there, too; the converted image is shared.
func TestSecondRepository(t *testing.T) {
	if !privateMounts(t) {
		return
	}
	n, reg := newNode(t), newClosedRegistry(t, true)
	image, digest := reg.push(t, "alice/tool:1", "the same")
	other, same := reg.push(t, "bob/copy:1", "the same")
	if digest != same {
		t.Fatal("two images")
	}
	reg.users.Lock()
	n.people(reg.host)
	n.runs(jobOf(alice, 1, image, digest), "the same")
	blobs := reg.getBlobs.Load()
	n.runs(jobOf(bob, 2, other, digest), "the same")
	if made := reg.getBlobs.Load() - blobs; made != 2 {
		t.Errorf("%d blobs from the second repository, want all 2", made)
	}
	requests := reg.requests.Load()
	n.runs(jobOf(alice, 3, image, digest), "the same")
	n.runs(jobOf(bob, 4, other, digest), "the same")
	if made := reg.requests.Load() - requests; made != 0 {
		t.Errorf("%d requests of those who have grants", made)
	}
	n.refuses(jobOf(bob, 5, image, digest))
	n.refuses(jobOf(alice, 6, other, digest))
	if len(n.published()) != 1 || modeOf(t, n.published()[0]) != 0o700 {
		t.Errorf("in the store: %q", n.published())
	}
}

// Who has all of an image can publish it; the node then tells everybody no more
// than that.
func TestImageBecomesPublic(t *testing.T) {
	if !privateMounts(t) {
		return
	}
	n, reg, other := newNode(t), newClosedRegistry(t, true), newRegistry(t)
	image, digest := reg.push(t, "alice/tool:1", "the same")
	elsewhere, _ := other.push(t, "mine:1", "the same")
	reg.users.Lock()
	n.people(reg.host)
	n.runs(jobOf(alice, 1, image, digest), "the same")
	n.runs(jobOf(bob, 2, elsewhere, digest), "the same")
	if got := other.getBlobs.Load(); got != 2 {
		t.Errorf("%d blobs came from the second registry, want all 2", got)
	}
	if mode := modeOf(t, n.published()[0]); mode != 0o755 {
		t.Errorf("mode %v", mode)
	}
	record, err := os.ReadFile(filepath.Join(n.published()[0], store.RecordName))
	must(t, err)
	if strings.Contains(string(record), "alice") || !strings.Contains(string(record), elsewhere) {
		t.Errorf("the record of what is public now: %s", record)
	}
}

// A repository that everybody may read now opens its image.
func TestRepositoryBecomesPublic(t *testing.T) {
	if !privateMounts(t) {
		return
	}
	n, reg := newNode(t), newClosedRegistry(t, true)
	image, digest := reg.push(t, "alice/tool:1", "for all")
	reg.users.Lock()
	n.people(reg.host)
	n.runs(jobOf(alice, 1, image, digest), "for all")
	n.refuses(jobOf(bob, 2, image, digest))
	reg.open.Store("alice/")
	blobs := reg.getBlobs.Load()
	n.runs(jobOf(bob, 3, image, digest), "for all")
	if made := reg.getBlobs.Load() - blobs; made != 0 || modeOf(t, n.published()[0]) != 0o755 {
		t.Errorf("%d blobs, mode %v", made, modeOf(t, n.published()[0]))
	}
}

// The same in the store of a cluster: the node that hears of it opens the image
// for all; one that may not write there asks for each job.
func TestClusterImageBecomesPublic(t *testing.T) {
	if !privateMounts(t) {
		return
	}
	for _, tt := range []struct {
		name            string
		inPlace, writer bool
	}{{"copied", false, true}, {"in place", true, true}, {"copied, by one that reads", false, false}} {
		t.Run(tt.name, func(t *testing.T) {
			reg, dir := newClosedRegistry(t, true), shared(t)
			image, digest := reg.push(t, "alice/tool:1", "for all")
			reg.users.Lock()
			nodes := newNodes(t, 3, dir, tt.inPlace)
			for _, n := range nodes {
				n.people(reg.host)
			}
			first, second, third := nodes[0], nodes[1], nodes[2]
			second.configure(func(c *testConfig) { c.Cluster.Writer = tt.writer })
			first.runs(jobOf(alice, 1, image, digest), "for all")
			second.refuses(jobOf(bob, 2, image, digest))
			reg.open.Store("alice/")
			blobs := reg.getBlobs.Load()
			second.runs(jobOf(bob, 3, image, digest), "for all")
			images, err := filepath.Glob(filepath.Join(dir, "images", "sha256", "*"))
			must(t, err)
			want := map[bool]os.FileMode{true: 0o755, false: 0o700}[tt.writer]
			if mode := modeOf(t, images[0]); mode != want {
				t.Errorf("mode %v in the cluster's store, want %v", mode, want)
			}
			requests := reg.requests.Load()
			third.runs(jobOf(bob, 4, image, digest), "for all")
			if asked := reg.requests.Load() != requests; asked == tt.writer || reg.getBlobs.Load() != blobs {
				t.Errorf("asked: %v; %d blobs", asked, reg.getBlobs.Load()-blobs)
			}
		})
	}
}

// A grant ends with its time. Then the registry decides, and where it does not
// answer the site.
func TestGrantsEnd(t *testing.T) {
	if !privateMounts(t) {
		return
	}
	n, reg := newNode(t), newClosedRegistry(t, false)
	image, digest := reg.push(t, "alice/tool:1", "alice's")
	reg.users.Lock()
	n.people(reg.host)
	n.runs(jobOf(alice, 1, image, digest), "alice's")
	n.configure(func(c *testConfig) { c.GrantTTL = time.Nanosecond })
	requests := reg.requests.Load()
	n.runs(jobOf(alice, 2, image, digest), "alice's")
	if reg.requests.Load() == requests {
		t.Error("the registry was not asked again")
	}
	reg.down.Store(true)
	if got := n.refuses(jobOf(alice, 3, image, digest)); !strings.Contains(got, "501 Not Implemented") {
		t.Error(got)
	}
	n.configure(func(c *testConfig) { c.GrantStaleOK = true })
	n.runs(jobOf(alice, 4, image, digest), "alice's")
	if got := n.refuses(jobOf(bob, 5, image, digest)); !strings.Contains(got, "501 Not Implemented") {
		t.Error(got)
	}
	reg.down.Store(false)
	reg.users.Passwords["alice"] = "changed"
	got := n.refuses(jobOf(alice, 6, image, digest))
	if !strings.Contains(got, "401 Unauthorized") || !strings.Contains(got, " to your login (alice, from ") || !strings.Contains(got, "berth login "+reg.host) {
		t.Error(got)
	}
	reg.down.Store(true) // the refusal has ended the grant
	n.refuses(jobOf(alice, 7, image, digest))
}

// Without a login, or with one that cannot be read, the user learns what to do.
func TestLoginWanted(t *testing.T) {
	if !privateMounts(t) {
		return
	}
	n, reg := newNode(t), newClosedRegistry(t, true)
	image, _ := reg.push(t, "alice/tool:1", "alice's")
	reg.users.Lock()
	n.people()
	got := n.refuses(jobOf(alice, 1, image, ""))
	if !strings.Contains(got, "401 Unauthorized") || !strings.Contains(got, "berth login "+reg.host) || strings.Contains(got, "no login was found") {
		t.Error(got)
	}
	must(t, os.Chmod(filepath.Join(n.cfg.Homes[alice], ".docker", "config.json"), 0))
	must(t, os.Chown(n.cfg.Homes[alice], 0, 0))
	must(t, os.Chmod(n.cfg.Homes[alice], 0o700))
	got = n.refuses(jobOf(alice, 2, image, ""))
	if !strings.Contains(got, "no login was found: ") || !strings.Contains(got, "permission denied") {
		t.Error(got)
	}
}

// Registries that hide what is private say that it does not exist.
func TestHiddenRepository(t *testing.T) {
	if !privateMounts(t) {
		return
	}
	n, reg := newNode(t), newClosedRegistry(t, false)
	image, digest := reg.push(t, "alice/tool:1", "alice's")
	reg.users.Lock()
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: reg.host})
	hides := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if _, _, ok := req.BasicAuth(); !ok && req.URL.Path != "/v2/" {
			http.NotFound(w, req)
			return
		}
		proxy.ServeHTTP(w, req)
	}))
	t.Cleanup(hides.Close)
	host := strings.TrimPrefix(hides.URL, "http://")
	n.people(host)
	image = strings.Replace(image, reg.host, host, 1)
	n.runs(jobOf(alice, 1, image, digest), "alice's")
	n.refuses(jobOf(bob, 2, image, digest))
}

// Alice's password is in her home, and nowhere else: not in a log, the run
// folder, the store, a command line or an environment, also during a pull, and
// no process that has it can be traced or dumps a core.
func TestSecretsStayHidden(t *testing.T) {
	if !privateMounts(t) {
		return
	}
	bothSchemes(t, func(t *testing.T, reg *closedRegistry) {
		n := newNode(t)
		n.configure(func(c *testConfig) { c.PrologWait = 0 })
		image, _ := reg.push(t, "alice/tool:1", "alice's")
		reg.users.Lock()
		n.people(reg.host)
		reg.stall(isBlob)
		r := jobOf(alice, 1, image, "")
		n.prepare(r)
		eventually(t, "the pull begins", func() bool { return reg.getBlobs.Load() > 0 })
		secrets := append(reg.users.Issued(), alicePassword, base64.StdEncoding.EncodeToString([]byte("alice:"+alicePassword)))
		n.wantHidden(secrets)
		for _, pid := range n.pids("worker", "fetch") {
			if !isGuarded("/proc/" + pid) {
				t.Errorf("process %s can be dumped or traced", pid)
			}
		}
		reg.answer()
		n.ready(r)
		n.wantHidden(secrets)
	})
}

// wantHidden fails where one of secrets shows.
func (n *node) wantHidden(secrets []string) {
	n.t.Helper()
	look := func(path string) {
		data, _ := os.ReadFile(path) // a process may have ended
		for _, s := range secrets {
			if strings.Contains(string(data), s) {
				n.t.Errorf("%s holds a secret", path)
			}
		}
	}
	for _, pattern := range []string{"/proc/[0-9]*/cmdline", "/proc/[0-9]*/environ"} {
		files, _ := filepath.Glob(pattern)
		for _, f := range files {
			look(f)
		}
	}
	for _, dir := range []string{n.cfg.RunDir, n.cfg.StoreDir} {
		must(n.t, filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
			if err == nil && d.Type().IsRegular() {
				look(path)
			}
			return nil // what goes meanwhile
		}))
	}
}

// pids are the node's processes of those names.
func (n *node) pids(names ...string) (pids []string) {
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, f := range files {
		data, _ := os.ReadFile(f)
		args := strings.Split(string(data), "\x00")
		for _, name := range names {
			if args[0] == filepath.Join(n.dir, "berth") && len(args) > 3 && args[3] == name {
				pids = append(pids, filepath.Base(filepath.Dir(f)))
			}
		}
	}
	return pids
}

// What hands an image to a job looks whether somebody looked.
func TestMustBeEntitled(t *testing.T) {
	d, err := store.ParseDigest("sha256:" + strings.Repeat("a", 64))
	must(t, err)
	w := &worker{}
	if w.mustBeEntitled(d) == nil || w.mustBeEntitled(store.Digest{}) == nil {
		t.Error("nobody looked")
	}
	if _, err := w.useImage(context.Background(), store.Image{}); fault.Of(err) != fault.Bug {
		t.Error(err)
	}
	w.entitled = d
	must(t, w.mustBeEntitled(d))
}

// A login is for the registry's own host. A mirror gets none, and whether it was
// shown to anybody decides who else may use the image.
func TestLoginIsForOneHost(t *testing.T) {
	ref, err := imagecache.ParseReference("quay.io/team/tool:1")
	must(t, err)
	login := credentials.NewLogin("alice", credentials.NewSecret(alicePassword), "a file").Reveal()
	_, l := withLogin(imagecache.Network{}, ref, &login)
	if got, err := l.Login(t.Context(), credentials.Target{Registry: "mirror.site"}); !got.IsZero() || err != nil || l.shown.Load() {
		t.Errorf("the mirror got %v, %v", got, err)
	}
	if got, err := l.Login(t.Context(), credentials.Target{Registry: "quay.io"}); got.Password().Reveal() != alicePassword || err != nil || !l.shown.Load() {
		t.Errorf("the registry got %v, %v", got, err)
	}
	if net, l := withLogin(imagecache.Network{}, ref, nil); net.Credentials != nil || net.Hidden || l.shown.Load() {
		t.Error("no login became one")
	}
}

// A grant is for one user, repository and image, and for its time.
func TestGrants(t *testing.T) {
	d, err := store.ParseDigest("sha256:" + strings.Repeat("a", 64))
	must(t, err)
	other, err := store.ParseDigest("sha256:" + strings.Repeat("b", 64))
	must(t, err)
	c := Config{StoreDir: t.TempDir(), GrantTTL: time.Hour}
	g := grant{UID: alice, Registry: "r", Repository: "a/b", Digest: d}
	must(t, c.give(g))
	for _, tt := range []struct {
		name         string
		c            Config
		g            grant
		given, holds bool
	}{
		{"itself", c, g, true, true},
		{"another user", c, grant{bob, "r", "a/b", d, time.Time{}}, false, false},
		{"another repository", c, grant{alice, "r", "a", d, time.Time{}}, false, false},
		{"the same name, cut elsewhere", c, grant{alice, "r/a", "b", d, time.Time{}}, false, false},
		{"another image", c, grant{alice, "r", "a/b", other, time.Time{}}, false, false},
		{"later", Config{StoreDir: c.StoreDir, GrantTTL: time.Nanosecond}, g, true, false},
		{"never", Config{StoreDir: c.StoreDir}, g, true, false},
	} {
		if given, holds := tt.c.granted(tt.g); given != tt.given || holds != tt.holds {
			t.Errorf("%s: given %v, holds %v", tt.name, given, holds)
		}
	}
	// The file of one is not taken for another's, nor one from the future.
	must(t, os.MkdirAll(c.grantsDir(bob), 0o700))
	stolen := g
	stolen.UID = bob
	must(t, os.Link(c.grantPath(g), c.grantPath(stolen)))
	if given, _ := c.granted(stolen); given {
		t.Error("bob has alice's grant")
	}
	future := g
	future.Given = time.Now().Add(time.Hour)
	must(t, store.WriteJSON(c.grantPath(g), 0o600, future))
	if _, holds := c.granted(g); holds {
		t.Error("a grant from the future holds")
	}
	must(t, c.takeBack(g))
	must(t, c.takeBack(g))
	if given, _ := c.granted(g); given {
		t.Error("taken back, and there")
	}
}

// Bob knows the digest, and so the path, of alice's image in every store and
// run folder; he reads nothing of it there, but a public image.
func TestGuessedPaths(t *testing.T) {
	if !privateMounts(t) {
		return
	}
	for _, inPlace := range []bool{false, true} {
		reg, dir := newClosedRegistry(t, true), shared(t)
		private, digest := reg.push(t, "alice/tool:1", "alice's")
		open, openDigest := reg.push(t, "public/tool:1", "for all")
		reg.users.Lock()
		n := newNodes(t, 1, dir, inPlace)[0]
		n.people(reg.host)
		n.runs(jobOf(alice, 1, private, digest), "alice's")
		n.runs(jobOf(alice, 2, open, openDigest), "for all")
		for _, top := range []string{n.cfg.StoreDir, dir} {
			for _, file := range []string{store.RootfsName, store.ConfigName, store.RecordName} {
				path := func(digest string) string {
					d, err := store.ParseDigest(digest)
					must(t, err)
					return filepath.Join(top, "images", "sha256", store.Key(d), file)
				}
				if _, err := os.Stat(path(digest)); err != nil {
					if top == dir || !inPlace {
						t.Error(err)
					}
					continue
				}
				if out, err := asUser(bob, "cat", path(digest)); err == nil || !strings.Contains(out, "Permission denied") {
					t.Errorf("bob reads %s: %v", path(digest), err)
				}
				if out, err := asUser(bob, "cat", path(openDigest)); err != nil {
					t.Errorf("bob cannot read %s, which is public: %s", path(openDigest), out)
				}
			}
		}
		for _, path := range []string{n.cfg.RunDir + "/cluster", n.cfg.RunDir + "/jobs", n.cfg.RunDir + "/private", n.cfg.StoreDir + "/grants"} {
			if _, err := os.Stat(path); err != nil {
				continue // of the other way
			}
			if out, err := asUser(bob, "ls", path+"/"); err == nil {
				t.Errorf("bob sees in %s: %s", path, out)
			}
		}
	}
}

// asUser runs a program with nothing but a user's number.
func asUser(uid uint32, args ...string) (string, error) {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env, cmd.Dir = []string{"PATH=/usr/bin:/bin", "LC_ALL=C"}, "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	out, err := cmd.CombinedOutput()
	return string(out), err
}
