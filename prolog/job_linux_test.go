package prolog

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/launcher/wire"
	"github.com/berth-hpc/berth/policy"
	"github.com/berth-hpc/berth/prolog/jobstate"
)

func TestParseJobFacts(t *testing.T) {
	tests := []struct {
		name, text string
		want       policy.Job // the zero Job: nobody knows
	}{
		{"one", "7|gpu|bio\n", policy.Job{Account: "bio", Partition: "gpu"}},
		{"no account", "7|gpu|(null)\n", policy.Job{Partition: "gpu"}},
		{"a bar in the account", "7|gpu|a|b\n", policy.Job{Account: "a|b", Partition: "gpu"}},
		{"an array", "6|cpu|bio\n7|gpu|bio\n8|cpu|bio\n", policy.Job{Account: "bio", Partition: "gpu"}},
		{"nothing", "", policy.Job{}},
		{"another job", "77|gpu|bio\n", policy.Job{}},
		{"no partition", "7||bio\n", policy.Job{}},
		{"no account's field", "7|gpu\n", policy.Job{}},
		// sbatch -A $'x\n7|gpu|staff', where Slurm lets users name any account.
		{"a line in the account", "7|cpu|x\n7|gpu|staff\n", policy.Job{}},
		{"a line in that of an array's other job", "8|cpu|x\n7|gpu|staff\n7|cpu|x\n7|gpu|staff\n", policy.Job{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parseJobFacts(tt.text, "7")
			if got == nil {
				got = &policy.Job{}
			}
			if *got != tt.want || (err == nil) != (tt.want.Partition != "") {
				t.Errorf("%+v, %v", got, err)
			}
		})
	}
}

// prepareFor is prepare with what slurmd tells a prolog.
func (n *node) prepareFor(r jobstate.Request, job policy.Job) {
	n.t.Helper()
	m, err := wire.Decode(message(n.t, r))
	must(n.t, err)
	data, err := m.Add("account", job.Account).Add("partition", job.Partition).Encode()
	must(n.t, err)
	must(n.t, Prepare(n.t.Context(), n.cfg.Config, bytes.NewReader(data)))
}

// The account and the partition of a job are what slurmd's prolog was told, or
// else what the scheduler says. While nobody knows, nothing is allowed by them.
func TestPolicyOnJobs(t *testing.T) {
	if !privateMounts(t) {
		return
	}
	n, reg := newNode(t), newRegistry(t)
	image, digest := reg.push(t, "a/b:v1", "inside")
	asked := filepath.Join(n.dir, "asked")
	n.configure(func(c *testConfig) {
		c.JobFacts = []string{"sh", "-c", `echo %j >>` + asked + `; printf '%s|cpu|theo\n' %j`}
		c.Policy = policy.Policy{Deny: true, Rules: []policy.Rule{
			rule("no gpu for theo", "*", func(r *policy.Rule) {
				r.Deny, r.Accounts, r.Partitions = true, []string{"theo"}, []string{"gpu"}
			}),
			rule("ours", "*", func(r *policy.Rule) { r.Accounts = []string{"Bio", "theo"} }),
		}}
	})
	for i, tt := range []struct {
		job    policy.Job
		denial string
	}{
		{policy.Job{Account: "bio", Partition: "gpu"}, ""},
		{policy.Job{Account: "theo", Partition: "cpu"}, ""},
		{policy.Job{Account: "theo", Partition: "gpu"}, `rule "no gpu for theo" (/etc/berth/berth.toml) denies it`},
		{policy.Job{Account: "biology", Partition: "gpu"}, "no rule allows it"},
		{policy.Job{Partition: "gpu"}, "no rule allows it"},
	} {
		r := request(uint32(i+1), image, digest)
		n.prepareFor(r, tt.job)
		_, err := n.outcome(r)
		if tt.denial == "" && err != nil || tt.denial != "" && (err == nil || !strings.Contains(err.Error(), tt.denial)) {
			t.Errorf("%+v: %v", tt.job, err)
		}
		if worker := n.log(r) != ""; worker == (i == 1) {
			t.Errorf("%+v: a worker: %v; want one but for what is at hand and allowed", tt.job, worker)
		}
	}
	if _, err := os.Stat(asked); err == nil {
		t.Error("the scheduler was asked although its prolog had told")
	}

	// A step brings another image into a job whose prolog told.
	step := request(2, image, "")
	n.prepare(step)
	n.ready(step)
	if _, err := os.Stat(asked); err == nil {
		t.Error("the scheduler was asked for a job whose prolog had told")
	}
	for range 2 { // into one whose prolog was not asked for an image
		late := request(20, image, digest)
		n.prepare(late)
		n.ready(late)
		late.Digest = ""
		n.prepare(late)
		n.ready(late)
	}
	if text, _ := os.ReadFile(asked); string(text) != "20\n" {
		t.Errorf("asked for %q, want job 20 once", text)
	}
	// The number comes again, for another user.
	again := request(20, image, digest)
	again.UID++
	n.prepare(again)
	n.ready(again)
	if text, _ := os.ReadFile(asked); string(text) != "20\n20\n" {
		t.Errorf("asked for %q: another user's job was taken for this one", text)
	}
}

// A rule that allows less than the next one must not be passed over because
// nobody has asked yet.
func TestPolicyOnAHitAsksForTheJob(t *testing.T) {
	if !privateMounts(t) {
		return
	}
	n, reg := newNode(t), newRegistry(t)
	image, digest := reg.push(t, "a/b:v1", "inside")
	n.prepare(request(1, image, digest))
	n.ready(request(1, image, digest))
	n.configure(func(c *testConfig) {
		c.JobFacts = []string{"echo", "%j|cpu|theo"}
		c.Policy = policy.Policy{Rules: []policy.Rule{
			rule("little", "*", func(r *policy.Rule) { r.Accounts, r.MaxCompressed = []string{"theo"}, 10 }),
			rule("all", "*", nil),
		}}
	})
	n.denied(request(2, image, digest), `rule "little"`)
}

func TestPolicyWhenNobodyKnowsTheJob(t *testing.T) {
	if !privateMounts(t) {
		return
	}
	n, reg := newNode(t), newRegistry(t)
	image, digest := reg.push(t, "a/b:v1", "inside")
	accounts := func(deny bool) func(*policy.Rule) {
		return func(r *policy.Rule) { r.Deny, r.Accounts = deny, []string{"bio"} }
	}
	job := uint32(0)
	for name, command := range map[string][]string{
		"it fails": {"false"}, "it does not know": {"true"}, "it says something else": {"echo", "bio"}, "there is none": nil,
	} {
		for what, p := range map[string]policy.Policy{
			"allowing": {Deny: true, Rules: []policy.Rule{rule("bio", "*", accounts(false))}},
			"denying":  {Rules: []policy.Rule{rule("bio", "*", accounts(true))}},
		} {
			t.Run(name+", "+what, func(t *testing.T) {
				n.configure(func(c *testConfig) { c.JobFacts, c.Policy = command, p })
				job++
				n.prepare(request(job, image, digest))
				_, err := n.outcome(request(job, image, digest))
				if err == nil || fault.Of(err) != fault.Site || !strings.Contains(err.Error(), "account and partition of job") {
					t.Errorf("%v", err)
				}
			})
		}
	}
	// What does not depend on it needs nobody.
	n.policy(policy.Policy{Rules: []policy.Rule{rule("bio", "quay.io", accounts(true))}})
	n.prepare(request(100, image, digest))
	n.ready(request(100, image, digest))
	if reg.getBlobs.Load() == 0 {
		t.Error("nothing was pulled at all")
	}
}
