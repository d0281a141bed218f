package config

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/berth-hpc/berth/policy"
)

// What a rule does.
const (
	Allow = "allow"
	Deny  = "deny"
)

// A Policy says which images the site lets whom use; see package policy.
type Policy struct {
	Default  string // Allow or Deny
	ReadOnly bool
	Contact  string
	// Signatures is a folder, "" for none.
	Signatures string
	// TrustedRoot is a file, "" for none.
	TrustedRoot string
	Rules       []Rule // in the order of the files
}

// A Rule is one table [[policy.rule]].
type Rule struct {
	Name          string
	Images        []string
	Users         []string
	Groups        []string
	Accounts      []string
	Partitions    []string
	Action        string // Allow or Deny
	MaxCompressed Size
	MaxImage      Size
	SignedBy      []string // files with public keys
	SignedName    bool

	From Origin   // the file in which it stands
	set  []string // the keys that it sets, in the order of ruleSettings
}

// A ruleSetting is one key of a rule, as a Setting is one of everything else.
type ruleSetting struct {
	key, doc, example string
	at                func(*Rule) any
	check             func(value any) error
}

// ruleKey is the key of the list of rules.
const ruleKey = "policy.rule"

// ruleSettings returns every key of a rule, in the order in which they are
// documented.
func ruleSettings() []ruleSetting {
	return []ruleSetting{
		{
			"name", "What denials and `berth policy check` call the rule. Each rule has a name of its own.", `"bio"`,
			func(r *Rule) any { return &r.Name }, notEmpty,
		},
		{
			"images", "The images it is for: REGISTRY or REGISTRY/REPOSITORY, without a tag; * stands for any characters, of a repository also for slashes, ? for one.", `["quay.io/biocontainers/*"]`,
			func(r *Rule) any { return &r.Images }, imagePatterns,
		},
		{
			"users", "The users it is for, by name or number; left out: all.", `["alice", "1002"]`,
			func(r *Rule) any { return &r.Users }, accountList,
		},
		{
			"groups", "The groups whose members it is for, by name or number; left out: all.", `["staff"]`,
			func(r *Rule) any { return &r.Groups }, accountList,
		},
		{
			"accounts", "The scheduler's accounts for whose jobs it is; left out: all, and none. Users choose among theirs, or among all that they can think of where Slurm's AccountingStorageEnforce has no associations.", `["bio"]`,
			func(r *Rule) any { return &r.Accounts }, accountList,
		},
		{
			"partitions", "The scheduler's partitions in which jobs run for which it is; left out: all.", `["gpu"]`,
			func(r *Rule) any { return &r.Partitions }, accountList,
		},
		{
			"action", "allow or deny.", `"allow"`,
			func(r *Rule) any { return &r.Action }, oneOf(Allow, Deny),
		},
		{
			"max_compressed", "How much the layers of an image may take as a registry has them. 0B is no limit.", `"20GB"`,
			func(r *Rule) any { return &r.MaxCompressed }, nil,
		},
		{
			"max_image", "How large the file may be that an image becomes. 0B is no limit.", `"40GB"`,
			func(r *Rule) any { return &r.MaxImage }, nil,
		},
		{
			"signed_by", "Files with public keys, as cosign generate-key-pair writes them into cosign.pub: one of them has to have signed the image (cosign sign --key), or an index that leads to it. Left out: it needs no signature.", `["/etc/berth/keys/bio.pub"]`,
			func(r *Rule) any { return &r.SignedBy }, keyFiles,
		},
		{
			"signed_name", "Whether it has to be signed for this very registry and repository: signatures that were copied to a mirror of another name do not count then.", "false",
			func(r *Rule) any { return &r.SignedName }, nil,
		},
	}
}

// policySettings are those of the site's policy, but for its rules.
func policySettings() []Setting {
	return []Setting{
		{
			Key: "policy.default", check: oneOf(Allow, Deny),
			Doc: "Whether jobs may use images that no rule matches: allow or deny.",
			at:  func(c *Config, _ string) any { return &c.Policy.Default },
		},
		{
			Key: "policy.read_only",
			Doc: "Whether nothing new is pulled on this node: jobs then use the images at hand, in the node's store or cluster.dir.",
			at:  func(c *Config, _ string) any { return &c.Policy.ReadOnly },
		},
		{
			Key: "policy.contact", Example: `"hpc-support@example.org"`,
			Doc: "Whom to ask about a denial; it ends the message. Unset: your administrator.",
			at:  func(c *Config, _ string) any { return &c.Policy.Contact },
		},
		{
			Key: "policy.signatures", check: absoluteOrNone, Example: `"/etc/berth/signatures"`,
			Doc: "A folder with signatures, for images whose registry has none or cannot be asked: sha256-HEX.json, as cosign download signature IMAGE prints them or cosign sign --bundle writes them, with the digest that was signed. The account reads it.",
			at:  func(c *Config, _ string) any { return &c.Policy.Signatures },
		},
		{
			Key: "policy.trusted_root", check: absoluteOrNone, Example: `"/etc/berth/trusted_root.json"`,
			Doc: "A file that names transparency logs as Sigstore's trusted_root.json does: one of them must have each signature that a rule wants. Nothing is asked of the log: its word is beside the signature. Unset: signatures need no log.",
			at:  func(c *Config, _ string) any { return &c.Policy.TrustedRoot },
		},
	}
}

// isRuleKey says whether key is the list of rules or below it, which readRules
// reads: there it does not say which rule is meant.
func isRuleKey(key []string) bool {
	return len(key) >= 2 && strings.Join(key[:2], ".") == ruleKey
}

// readRules adds the rules of one file.
func (c *Config) readRules(tree map[string]any, from Origin, site bool) error {
	table, _ := tree["policy"].(map[string]any)
	value, ok := table["rule"]
	switch {
	case !ok:
		return nil
	case !site:
		return errors.New("policy.rule is for the site to set, in " + Dir + "/berth.toml")
	}
	rules, ok := value.([]map[string]any)
	if !ok {
		return errors.New("policy.rule: write each rule as a table of its own, below [[policy.rule]]")
	}
	for i, keys := range rules {
		r, err := readRule(keys, from)
		if err == nil && slices.ContainsFunc(c.Policy.Rules, func(o Rule) bool { return o.Name == r.Name }) {
			err = errors.New("another rule has that name")
		}
		if err != nil {
			return fmt.Errorf("%s %s: %w", ruleKey, ruleLabel(r, i), err)
		}
		c.Policy.Rules = append(c.Policy.Rules, r)
	}
	return nil
}

// ruleLabel is a rule's name, or where it stands in its file.
func ruleLabel(r Rule, i int) string {
	if r.Name == "" {
		return fmt.Sprintf("number %d", i+1)
	}
	return quote(r.Name)
}

func readRule(keys map[string]any, from Origin) (Rule, error) {
	r := Rule{From: from}
	r.Name, _ = keys["name"].(string) // for the errors below
	for _, s := range ruleSettings() {
		value, ok := keys[s.key]
		if !ok {
			continue
		}
		if err := s.assign(&r, value); err != nil {
			return r, fmt.Errorf("%s: %w", s.key, err)
		}
		r.set = append(r.set, s.key)
	}
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		if !slices.Contains(r.set, key) {
			return r, fmt.Errorf("unknown key %s", key)
		}
	}
	if r.SignedName && len(r.SignedBy) == 0 {
		return r, errors.New("signed_name without signed_by")
	}
	for _, key := range []string{"name", "images", "action"} {
		if !slices.Contains(r.set, key) {
			return r, fmt.Errorf("%s is missing", key)
		}
	}
	return r, nil
}

func (s ruleSetting) assign(r *Rule, value any) error {
	if err := assign(s.at(r), value); err != nil {
		return err
	}
	if s.check == nil {
		return nil
	}
	return s.check(deref(s.at(r)))
}

// ruleValues are what the rules set, for `berth config show`.
func (c *Config) ruleValues() []Value {
	var all []Value
	for i := range c.Policy.Rules {
		r := &c.Policy.Rules[i]
		for _, s := range ruleSettings() {
			if s.key == "name" || !slices.Contains(r.set, s.key) {
				continue
			}
			at := s.at(r)
			all = append(all, Value{Key: ruleKey + "." + quote(r.Name) + "." + s.key, Value: plain(deref(at)), Origin: r.From, text: format(at)})
		}
	}
	return all
}

// ruleTemplate explains the keys of a rule.
func ruleTemplate() string {
	var b strings.Builder
	b.WriteString("\n" + wrap("A rule of the policy. There may be any number; of those that match an image and who asks for it, the first decides, in the order of the files and in them.", "# ", 78))
	b.WriteString("#[[" + ruleKey + "]]\n")
	for _, s := range ruleSettings() {
		b.WriteString("\n" + wrap(s.doc, "# ", 78))
		fmt.Fprintf(&b, "#%s = %s\n", s.key, s.example)
	}
	return b.String()
}

func imagePatterns(value any) error {
	patterns := value.([]string)
	if len(patterns) == 0 {
		return errors.New("no image; all of them are [\"*\"]")
	}
	for _, p := range patterns {
		if err := policy.CheckPattern(p); err != nil {
			return fmt.Errorf("%q: %w", p, err)
		}
	}
	return nil
}

// accountList refuses an empty list: it would be for nobody, but a list that
// is left out is for everybody.
func accountList(value any) error {
	list := value.([]string)
	if len(list) == 0 || slices.Contains(list, "") {
		return errors.New("a name is missing; leave the key out to mean everybody")
	}
	return nil
}

// keyFiles refuses an empty list: a rule that wants a signature must not be
// taken for one that wants none.
func keyFiles(value any) error {
	list := value.([]string)
	if len(list) == 0 {
		return errors.New("no key; leave it out where no signature is needed")
	}
	for _, path := range list {
		if err := absolute(path); err != nil {
			return err
		}
	}
	return nil
}
