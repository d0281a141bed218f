package main

import (
	"errors"
	"fmt"
	"os/user"
	"strconv"
	"strings"

	"github.com/berth-hpc/berth/cmd/internal/config"
	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/imagecache"
	"github.com/berth-hpc/berth/policy"
	"github.com/berth-hpc/berth/prolog"
)

// policyCmd is about what the site lets jobs use.
type policyCmd struct {
	Check policyCheckCmd `cmd:"" help:"Say whether jobs may use an image, and which rule decides."`
}

// policyCheckCmd explains a decision.
type policyCheckCmd struct {
	Image string `arg:"" help:"[REGISTRY/]NAME[:TAG][@DIGEST]."`
	User  string `placeholder:"NAME" help:"Whose job it is, by name or number; yours if left out."`

	Account   string `placeholder:"NAME" help:"The job's account."`
	Partition string `placeholder:"NAME" help:"The job's partition."`

	JSON bool `name:"json" help:"Print the decision as JSON."`
}

// A decisionReport is what --json prints.
type decisionReport struct {
	Image         string         `json:"image"`
	User          string         `json:"user"`
	Allowed       bool           `json:"allowed"`
	By            string         `json:"by"`
	MaxCompressed int64          `json:"max_compressed_bytes,omitempty"`
	MaxImage      int64          `json:"max_image_bytes,omitempty"`
	JobUnknown    bool           `json:"job_unknown"`
	ReadOnly      bool           `json:"read_only"`
	SignedBy      []string       `json:"signed_by,omitempty"`
	SignedName    bool           `json:"signed_name,omitempty"`
	Passed        []passedReport `json:"passed"`
}

// A passedReport is a rule that does not match, and what of it.
type passedReport struct {
	Rule    string `json:"rule"`
	Differs string `json:"differs"`
}

// Run ends with the denial, if it is one.
func (c *policyCheckCmd) Run(s *session) error {
	cfg, err := config.Load(config.Source{Dir: s.configDir})
	if err != nil {
		return err
	}
	who, err := s.whose(c.User)
	if err != nil {
		return err
	}
	p := policyOf(cfg)
	d, err := prolog.CheckPolicy(p, c.Image, uint32(who.uid), uint32(who.gid), c.job())
	if err != nil {
		return err
	}
	if c.JSON {
		err = s.printJSON(reportOf(p, d, who))
	} else {
		s.printDecision(p, d, who)
	}
	return errors.Join(err, d.Err())
}

// job is the one that the options describe; nil for any.
func (c *policyCheckCmd) job() *policy.Job {
	if c.Account == "" && c.Partition == "" {
		return nil
	}
	return &policy.Job{Account: c.Account, Partition: c.Partition}
}

func reportOf(p policy.Policy, d policy.Decision, who account) decisionReport {
	r := decisionReport{
		Image: d.Image.String(), User: who.label(), Allowed: d.Allowed(), By: d.By(), ReadOnly: p.ReadOnly, JobUnknown: d.JobUnknown,
		SignedBy: d.SignedBy(), SignedName: d.SignedName(), Passed: []passedReport{},
	}
	for _, passed := range d.Passed {
		r.Passed = append(r.Passed, passedReport{passed.Rule.String(), passed.What})
	}
	if d.Rule != nil {
		r.MaxCompressed, r.MaxImage = d.Rule.MaxCompressed, d.Rule.MaxImage
	}
	return r
}

// printDecision prints the rules in their order, up to the one that decides.
func (s *session) printDecision(p policy.Policy, d policy.Decision, who account) {
	for _, passed := range d.Passed {
		fmt.Fprintf(s.stdout, "%s does not match: its %s\n", passed.Rule, passed.What)
	}
	word := "allowed"
	if !d.Allowed() {
		word = "denied"
	}
	fmt.Fprintf(s.stdout, "%s for %s: %s by %s\n", d.Image, who.label(), word, d.By())
	if d.Rule != nil && d.Rule.MaxCompressed > 0 {
		fmt.Fprintf(s.stdout, "its layers may take %s\n", config.Size(d.Rule.MaxCompressed))
	}
	if d.Rule != nil && d.Rule.MaxImage > 0 {
		fmt.Fprintf(s.stdout, "the converted image may take %s\n", config.Size(d.Rule.MaxImage))
	}
	if d.JobUnknown {
		fmt.Fprintln(s.stdout, "that depends on the job: name its --account and --partition")
	}
	if keys := d.SignedBy(); len(keys) > 0 {
		fmt.Fprintf(s.stdout, "it has to be signed by a key of %s\n", strings.Join(keys, ", "))
	}
	if p.ReadOnly {
		fmt.Fprintf(s.stdout, "only if it is at hand on the node: policy.read_only (%s)\n", p.ReadOnlyFrom)
	}
}

// label is a name, or a number where there is none.
func (a account) label() string {
	if a.name != "" {
		return a.name
	}
	return strconv.Itoa(a.uid)
}

// whose is the account of that name or number; "" is the process's own.
func (s *session) whose(name string) (account, error) {
	if name == "" {
		return s.user, nil
	}
	u, err := user.Lookup(name)
	if n, nerr := strconv.ParseUint(name, 10, 32); err != nil && nerr == nil {
		if u, err = user.LookupId(name); err != nil {
			return account{uid: int(n), gid: int(n)}, nil // a job's user need not be known here
		}
	}
	if err != nil {
		return account{}, fault.Wrap("look up the user", name, fault.User, "check the spelling", err)
	}
	uid, uerr := strconv.Atoi(u.Uid)
	gid, gerr := strconv.Atoi(u.Gid)
	return account{uid: uid, gid: gid, name: u.Username, home: u.HomeDir}, errors.Join(uerr, gerr)
}

// permitted is an early word for jobs, by the rules of the machine on which
// they are submitted. Those of the node count.
func (s *session) permitted(ref imagecache.Reference) error {
	cfg, err := config.Load(config.Source{Dir: s.configDir})
	if err != nil || ref.Kind() != imagecache.Registry {
		return err
	}
	p := policyOf(cfg)
	if !p.Restricts() {
		return nil
	}
	d, err := prolog.CheckPolicy(p, ref.String(), uint32(s.user.uid), uint32(s.user.gid), nil)
	if err != nil || d.JobUnknown {
		return err // the node will know the job
	}
	return d.Err()
}

// denials returns what says, of an image in a registry, which of the site's
// rules keeps the user's jobs from it; "" for none, or if that depends on the
// job.
func (s *session) denials() (func(image string) (by string, err error), error) {
	cfg, err := config.Load(config.Source{Dir: s.configDir})
	if err != nil {
		return nil, err
	}
	p := policyOf(cfg)
	return func(image string) (string, error) {
		if !p.Restricts() {
			return "", nil
		}
		d, err := prolog.CheckPolicy(p, image, uint32(s.user.uid), uint32(s.user.gid), nil)
		if err != nil || d.JobUnknown || d.Allowed() {
			return "", err
		}
		return d.By(), nil
	}, nil
}

// policyOf is the site's policy as its settings have it.
func policyOf(cfg *config.Config) policy.Policy {
	p := policy.Policy{
		Deny: cfg.Policy.Default == config.Deny, ReadOnly: cfg.Policy.ReadOnly, Contact: cfg.Policy.Contact, Signatures: cfg.Policy.Signatures, TrustedRoot: cfg.Policy.TrustedRoot,
		ReadOnlyFrom: string(cfg.Origin("policy.read_only")),
	}
	if from := cfg.Origin("policy.default"); from != config.Default {
		p.DefaultFrom = string(from)
	}
	for _, r := range cfg.Policy.Rules {
		p.Rules = append(p.Rules, policy.Rule{
			Name: r.Name, From: string(r.From), Images: r.Images, Users: r.Users, Groups: r.Groups, Deny: r.Action == config.Deny,
			Accounts: r.Accounts, Partitions: r.Partitions,
			MaxCompressed: int64(r.MaxCompressed), MaxImage: int64(r.MaxImage), SignedBy: r.SignedBy, SignedName: r.SignedName,
		})
	}
	return p
}
