package prolog

import (
	"slices"
	"strings"
	"testing"

	"github.com/sirupsen/logrus"

	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/imagecache/store"
	"github.com/berth-hpc/berth/policy"
	"github.com/berth-hpc/berth/prolog/jobstate"
)

// rule is in every test's policy.
func rule(name, image string, change func(*policy.Rule)) policy.Rule {
	r := policy.Rule{Name: name, From: "/etc/berth/berth.toml", Images: []string{image}}
	if change != nil {
		change(&r)
	}
	return r
}

func denies(r *policy.Rule) { r.Deny = true }

// denied prepares r and wants a denial with these words.
func (n *node) denied(r jobstate.Request, words string) {
	n.t.Helper()
	n.prepare(r)
	_, err := n.outcome(r)
	if err == nil || fault.Of(err) != fault.User || !strings.Contains(err.Error(), words) || !strings.Contains(fault.Remedy(err), "berth policy check") {
		n.t.Errorf("job %s: %v (%s), want %s", r.Job, err, fault.Remedy(err), words)
	}
}

func (n *node) policy(p policy.Policy) {
	n.t.Helper()
	n.configure(func(c *testConfig) { c.Policy = p })
}

// A denial comes before anybody asks a registry, and names its rule.
func TestPolicyBeforeAFetch(t *testing.T) {
	if !privateMounts(t) {
		return
	}
	n, reg := newNode(t), newRegistry(t)
	image, digest := reg.push(t, "a/b:v1", "inside")
	tests := []struct {
		name  string
		p     policy.Policy
		words string
	}{
		{"rule", policy.Policy{Rules: []policy.Rule{rule("no", reg.host+"/a/*", denies)}}, `rule "no" (/etc/berth/berth.toml) denies it`},
		{"user by number", policy.Policy{Rules: []policy.Rule{rule("no1000", "*", func(r *policy.Rule) { r.Deny, r.Users = true, []string{"1000"} })}}, `rule "no1000"`},
		{"group by number", policy.Policy{Rules: []policy.Rule{rule("no1000", "*", func(r *policy.Rule) { r.Deny, r.Groups = true, []string{"1000"} })}}, `rule "no1000"`},
		{"default", policy.Policy{Deny: true, DefaultFrom: "/x.toml"}, "policy.default (/x.toml) denies what no rule allows"},
	}
	job := uint32(10)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n.policy(tt.p)
			before := reg.requests.Load()
			for _, pinned := range []string{"", digest} {
				job++
				n.denied(request(job, image, pinned), tt.words)
			}
			if asked := reg.requests.Load() - before; asked != 0 {
				t.Errorf("the registry was asked %d times", asked)
			}
		})
	}
	n.policy(policy.Policy{ReadOnly: true, ReadOnlyFrom: "/x.toml"})
	n.denied(request(1, image, digest), "it is not at hand for you, and policy.read_only (/x.toml)")
	n.policy(policy.Policy{Rules: []policy.Rule{rule("small", "*", func(r *policy.Rule) { r.MaxCompressed = 10 })}})
	n.denied(request(2, image, digest), `rule "small" (/etc/berth/berth.toml) allows 10`)
	if blobs := reg.getBlobs.Load(); blobs != 0 || len(n.published()) != 0 {
		t.Errorf("%d blobs were asked for, %q published", blobs, n.published())
	}
	n.policy(policy.Policy{Deny: true, Rules: []policy.Rule{
		rule("others", "*", func(r *policy.Rule) { r.Deny, r.Users = true, []string{"1001"} }),
		rule("yes", reg.host, func(r *policy.Rule) { r.MaxCompressed, r.MaxImage = 1<<20, 1<<20 }),
	}})
	n.prepare(request(3, image, ""))
	n.ready(request(3, image, ""))
}

// What the rules say counts when a job starts, not when the image was pulled.
func TestPolicyOnAHit(t *testing.T) {
	if !privateMounts(t) {
		return
	}
	n, reg := newNode(t), newRegistry(t)
	image, digest := reg.push(t, "a/b:v1", "inside")
	n.prepare(request(1, image, digest))
	n.ready(request(1, image, digest))

	n.policy(policy.Policy{Rules: []policy.Rule{rule("later", reg.host+"/a/b", denies)}})
	n.denied(request(2, image, digest), `rule "later"`)
	n.policy(policy.Policy{Rules: []policy.Rule{rule("tiny", "*", func(r *policy.Rule) { r.MaxImage = 100 })}})
	n.denied(request(3, image, digest), `the converted image takes`)
	n.policy(policy.Policy{Rules: []policy.Rule{rule("tiny", "*", func(r *policy.Rule) { r.MaxCompressed = 10 })}})
	n.denied(request(4, image, digest), `its layers take`)

	before := reg.requests.Load()
	n.policy(policy.Policy{ReadOnly: true, Rules: []policy.Rule{rule("all", "*", nil)}})
	n.prepare(request(5, image, digest))
	n.ready(request(5, image, digest))
	if asked := reg.requests.Load() - before; asked != 0 {
		t.Errorf("the registry was asked %d times", asked)
	}
	if log := n.log(request(5, image, digest)); log != "" {
		t.Errorf("an image at hand took a worker: %s", log)
	}
}

// The digest of a denied repository's image under an allowed name leads round
// no rule; an image that really is in both repositories is the same image.
func TestPolicyOnADigestOfAnotherRepository(t *testing.T) {
	if !privateMounts(t) {
		return
	}
	n, reg := newNode(t), newRegistry(t)
	image, digest := reg.push(t, "private/b:v1", "inside")
	n.prepare(request(1, image, digest))
	n.ready(request(1, image, digest))

	n.policy(policy.Policy{Deny: true, Rules: []policy.Rule{rule("open", reg.host+"/open/*", nil)}})
	n.denied(request(2, image, digest), "no rule allows it")
	reg.push(t, "open/c:v1", "something else")
	stranger := request(3, reg.host+"/open/c:v1", digest)
	n.prepare(stranger)
	if ready, err := n.outcome(stranger); err == nil {
		t.Errorf("a digest led round the rule: %+v", ready)
	}
	reg.push(t, "open/c:v2", "inside") // the same image
	for job := uint32(4); job < 6; job++ {
		both := request(job, reg.host+"/open/c:v2", digest)
		before := reg.requests.Load()
		n.prepare(both)
		n.ready(both)
		if asked := reg.requests.Load() - before; (asked == 0) != (job == 5) {
			t.Errorf("job %d: %d requests; want it to be asked for once", job, asked)
		}
	}
}

// What a cluster's store has needs no pull; what it lacks is not pulled there
// by a node that pulls nothing.
func TestPolicyWithAClusterStore(t *testing.T) {
	if !privateMounts(t) {
		return
	}
	reg := newRegistry(t)
	image, digest := reg.push(t, "a/b:v1", "inside")
	nodes := newNodes(t, 2, shared(t), false)
	first, second := nodes[0], nodes[1]
	first.policy(policy.Policy{Rules: []policy.Rule{rule("all", "*", nil)}})
	second.policy(policy.Policy{ReadOnly: true})
	second.denied(request(1, image, digest), "policy.read_only")
	first.prepare(request(1, image, digest))
	first.ready(request(1, image, digest))
	blobs := reg.getBlobs.Load()
	second.prepare(request(2, image, digest))
	second.ready(request(2, image, digest))
	if reg.getBlobs.Load() != blobs {
		t.Error("it was pulled again")
	}
	first.cleanup(1)
	second.policy(policy.Policy{Rules: []policy.Rule{rule("no", "*", denies)}})
	second.denied(request(3, image, digest), `rule "no"`)
}

// A damaged image goes, but nothing is pulled in its place.
func TestReadOnlyPullsNothingToRepair(t *testing.T) {
	if !privateMounts(t) {
		return
	}
	n, reg := newNode(t), newRegistry(t)
	image, digest := reg.push(t, "a/b:v1", "inside")
	n.prepare(request(1, image, digest))
	n.ready(request(1, image, digest))
	n.policy(policy.Policy{ReadOnly: true, ReadOnlyFrom: "/x.toml"})
	st, err := store.OpenExisting(n.cfg.StoreDir)
	must(t, err)
	d, err := store.ParseDigest(digest)
	must(t, err)
	im, err := st.Get(d)
	must(t, err)
	blobs := reg.getBlobs.Load()
	err = Repair(t.Context(), logrus.New(), n.cfg.Config, im, []string{image})
	if err == nil || !strings.Contains(err.Error(), "policy.read_only (/x.toml)") || reg.getBlobs.Load() != blobs {
		t.Errorf("%v; %d blobs", err, reg.getBlobs.Load()-blobs)
	}
}

// A prolog looks no user up: their database may hang.
func TestPolicyLooksUsersUpInTheWorker(t *testing.T) {
	if !privateMounts(t) {
		return
	}
	n, reg := newNode(t), newRegistry(t)
	image, digest := reg.push(t, "a/b:v1", "inside")
	n.policy(policy.Policy{Rules: []policy.Rule{rule("root", "*", func(r *policy.Rule) { r.Deny, r.Groups = true, []string{"root"} })}})
	for job := uint32(1); job < 3; job++ {
		n.prepare(request(job, image, digest))
		n.ready(request(job, image, digest))
		if n.log(request(job, image, digest)) == "" {
			t.Errorf("job %d: no worker", job)
		}
	}
	n.denied(jobstate.Request{Job: "3", UID: 0, GID: 1000, Image: image, Digest: digest}, `rule "root"`)
}

func TestSubjectHasAllGroups(t *testing.T) {
	p := policy.Policy{Rules: []policy.Rule{rule("x", "*", func(r *policy.Rule) { r.Users = []string{"x"} })}}
	who, err := subject(p, 0, 4711)
	if err != nil || who.User != "root" {
		t.Fatalf("%+v, %v", who, err)
	}
	for _, want := range []string{"4711", "0", "root"} {
		if !slices.Contains(who.Groups, want) {
			t.Errorf("%q without %s", who.Groups, want)
		}
	}
	who, err = subject(p, 4294000001, 4294000002)
	if err != nil || who.User != "" || !slices.Equal(who.Groups, []string{"4294000002"}) {
		t.Errorf("nobody: %+v, %v", who, err)
	}
}
