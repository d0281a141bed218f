// Package policy says which images a site lets whom use on its nodes: an
// ordered list of rules, of which the first that matches decides.
//
// It binds the store of a node, which jobs use. What users pull into stores
// of their own and run by hand is not its business: it could not be, since
// anybody can bring a container runtime of their own.
//
// Nothing here reads a file, asks a registry or looks a user up: who asks, and
// what the image is, are arguments. See package config for how rules are
// written, and package prolog for where they are applied.
package policy

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/berth-hpc/berth/fault"
)

// A Policy is what a site has decided. The zero Policy allows everything.
type Policy struct {
	Rules []Rule
	// Deny is what happens to images that no rule matches, and DefaultFrom the
	// file which says so, "" where none does.
	Deny        bool
	DefaultFrom string
	// ReadOnly pulls nothing; ReadOnlyFrom is the file which says so.
	ReadOnly     bool
	ReadOnlyFrom string
	// Signatures is a folder with signatures of the site's, "" for none.
	Signatures string
	// TrustedRoot is a file that names the transparency logs of which one must
	// have each signature, "" where none need.
	TrustedRoot string
	// Contact is whom to ask, in the site's words; "" for the administrator.
	Contact string
}

// A Rule allows or denies what matches all of its lists. An empty list of
// users, groups, accounts or partitions matches all of them.
type Rule struct {
	Name string
	From string // the file in which it stands
	// Images are patterns: see Image.Matches.
	Images []string
	// Users and Groups are names, or numbers in decimal digits.
	Users, Groups []string
	// Accounts and Partitions are names as the scheduler has them.
	Accounts, Partitions []string
	Deny                 bool
	// MaxCompressed bounds an image's layers as they are transferred, and
	// MaxImage the file that becomes of them, in bytes; zero does not.
	MaxCompressed, MaxImage int64
	// SignedBy are files with public keys, one of which has to have signed the
	// image; empty for images that need no signature. With SignedName it has to
	// be signed for the very repository.
	SignedBy   []string
	SignedName bool
}

// A Subject is who asks. Groups holds both names and numbers of all groups
// that the user is in.
type Subject struct {
	UID    uint32
	User   string // "" where the system knows no name
	Groups []string
	// Job is nil where nobody knows.
	Job *Job
}

// A Job is what the scheduler says of the job that asks, whatever its user
// says of it.
type Job struct {
	Account   string `json:"account,omitempty"` // "" for none
	Partition string `json:"partition"`
}

// Restricts says whether anything could be denied.
func (p Policy) Restricts() bool { return p.Deny || p.ReadOnly || len(p.Rules) > 0 }

// AsksForUsers says whether some rule needs a Subject's User or Groups.
func (p Policy) AsksForUsers() bool {
	for _, r := range p.Rules {
		if len(r.Users) > 0 || len(r.Groups) > 0 {
			return true
		}
	}
	return false
}

// A Decision is what the policy says of one image and one user.
type Decision struct {
	Image Image
	// Rule is the one that decided; nil for the policy's default.
	Rule *Rule
	// Passed are the rules before that one, and why each does not match.
	Passed []Passed
	// JobUnknown says that a rule depends on the Subject's Job, which is nil. It
	// counted if it denies, else not: but the next one may allow more, so the
	// decision is one to talk about, not to act on.
	JobUnknown bool

	policy *Policy
}

// A Passed rule does not match, because of What: "images", "users", "groups",
// "accounts" or "partitions".
type Passed struct {
	Rule *Rule
	What string
}

// Decide applies the rules to an image and who asks for it.
func (p *Policy) Decide(im Image, who Subject) Decision {
	d := Decision{Image: im, policy: p}
	for i := range p.Rules {
		r := &p.Rules[i]
		what := r.differs(im, who)
		if what == "" && who.Job == nil && r.asksForJob() {
			d.JobUnknown = true
			if !r.Deny {
				what = "accounts or partitions, which are not known"
			}
		}
		if what == "" {
			d.Rule = r
			return d
		}
		d.Passed = append(d.Passed, Passed{r, what})
	}
	return d
}

func (r *Rule) asksForJob() bool { return len(r.Accounts) > 0 || len(r.Partitions) > 0 }

// differs names the first list of r that does not match; "" where all do, as
// far as is known.
func (r *Rule) differs(im Image, who Subject) string {
	switch {
	case !im.matchesAny(r.Images):
		return "images"
	case len(r.Users) > 0 && !who.isAny(r.Users):
		return "users"
	case len(r.Groups) > 0 && !who.inAny(r.Groups):
		return "groups"
	case who.Job == nil:
	case len(r.Accounts) > 0 && !isName(who.Job.Account, r.Accounts):
		return "accounts"
	case len(r.Partitions) > 0 && !isName(who.Job.Partition, r.Partitions):
		return "partitions"
	}
	return ""
}

// isName compares a name of the scheduler's with those of a rule. Slurm keeps
// accounts in lower case, however they were written.
func isName(name string, names []string) bool {
	return name != "" && slices.ContainsFunc(names, func(n string) bool { return n == name || strings.ToLower(n) == name })
}

// isAny compares names with names and numbers with the uid: a user whose name
// is a number cannot pass for another one.
func (s Subject) isAny(users []string) bool {
	for _, u := range users {
		if isNumber(u) && u == fmt.Sprint(s.UID) || !isNumber(u) && u == s.User {
			return true
		}
	}
	return false
}

func (s Subject) inAny(groups []string) bool {
	for _, want := range groups {
		for _, g := range s.Groups {
			if g == want {
				return true
			}
		}
	}
	return false
}

func isNumber(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }

// Allowed says whether the image may be used, as far as its name goes.
func (d Decision) Allowed() bool {
	if d.Rule != nil {
		return !d.Rule.Deny
	}
	return !d.policy.Deny
}

// By names what decided: a rule and its file, or the default and its.
func (d Decision) By() string {
	switch {
	case d.Rule != nil:
		return d.Rule.String()
	case d.policy.DefaultFrom != "":
		return "policy.default (" + d.policy.DefaultFrom + ")"
	}
	return "policy.default"
}

// String names the rule and its file.
func (r *Rule) String() string { return fmt.Sprintf("rule %q (%s)", r.Name, r.From) }

// SignedBy are the files with the keys that must have signed the image; none
// where it needs no signature.
func (d Decision) SignedBy() []string {
	if d.Rule == nil {
		return nil
	}
	return d.Rule.SignedBy
}

// SignedName says whether it must be signed for the very repository.
func (d Decision) SignedName() bool { return d.Rule != nil && d.Rule.SignedName }

// Unsigned is the denial of an image without the signature that it needs.
func (d Decision) Unsigned() error {
	why := "no key that %s names has signed it"
	if d.Rule.SignedName {
		why += " as " + d.Image.String()
	}
	return d.denial(fmt.Errorf(why, d.By()))
}

// Err is the denial, nil where the image is allowed.
func (d Decision) Err() error {
	switch {
	case d.Allowed():
		return nil
	case d.Rule == nil:
		return d.denial(errors.New("no rule allows it, and " + d.By() + " denies what no rule allows"))
	}
	return d.denial(errors.New(d.By() + " denies it"))
}

// Compressed is the denial of an image whose layers take so many bytes as they
// are transferred, nil where that is allowed.
func (d Decision) Compressed(bytes int64) error {
	return d.size("its layers take", bytes, func(r *Rule) int64 { return r.MaxCompressed })
}

// Size is the denial of an image whose file takes so many bytes, nil where
// that is allowed.
func (d Decision) Size(bytes int64) error {
	return d.size("the converted image takes", bytes, func(r *Rule) int64 { return r.MaxImage })
}

func (d Decision) size(what string, bytes int64, limit func(*Rule) int64) error {
	if d.Rule == nil || limit(d.Rule) <= 0 || bytes <= limit(d.Rule) {
		return nil
	}
	return d.denial(fmt.Errorf("%s %d bytes, and %s allows %d", what, bytes, d.By(), limit(d.Rule)))
}

func (d Decision) denial(why error) error { return d.policy.denial(d.Image.String(), why) }

// Pulling is the denial of anything that is not at hand, nil where images may
// be pulled.
func (p *Policy) Pulling(image string) error {
	if !p.ReadOnly {
		return nil
	}
	return p.denial(image, fmt.Errorf("it is not at hand for you, and policy.read_only (%s) lets nothing new be pulled", p.ReadOnlyFrom))
}

// denial is the user's fault: trying again does not help.
func (p *Policy) denial(image string, why error) error {
	contact := p.Contact
	if contact == "" {
		contact = "your administrator"
	}
	return &fault.Error{
		Op: "use the image", Arg: image, Blame: fault.User, Cause: fault.PolicyDenied,
		Remedy: "use another image, or ask " + contact + "; berth policy check IMAGE says which rule decides",
		Err:    fmt.Errorf("the site's policy: %w", why),
	}
}
