package config

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/berth-hpc/berth/fault"
)

func TestRulesKeepTheirOrder(t *testing.T) {
	dir := write(t, map[string]string{
		"berth.toml": `
[[policy.rule]]
name = "b"
images = ["quay.io/*", "ghcr.io"]
users = ["alice"]
groups = ["staff"]
accounts = ["bio"]
partitions = ["gpu", "cpu"]
action = "deny"
[[policy.rule]]
name = "a"
images = ["*"]
action = "allow"
max_compressed = "20GB"
max_image = 1000
[policy]
default = "deny"
`,
		"conf.d/1.toml": "policy.contact = 'x'\n[[policy.rule]]\nname = 'c'\nimages = ['*']\naction = 'deny'\n",
	})
	c, err := Load(Source{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	file := Origin(filepath.Join(dir, "berth.toml"))
	want := Policy{Default: Deny, Contact: "x", Rules: []Rule{
		{Name: "b", Images: []string{"quay.io/*", "ghcr.io"}, Users: []string{"alice"}, Groups: []string{"staff"}, Accounts: []string{"bio"}, Partitions: []string{"gpu", "cpu"}, Action: Deny, From: file},
		{Name: "a", Images: []string{"*"}, Action: Allow, MaxCompressed: 20e9, MaxImage: 1000, From: file},
		{Name: "c", Images: []string{"*"}, Action: Deny, From: Origin(filepath.Join(dir, "conf.d/1.toml"))},
	}}
	if diff := cmp.Diff(want, c.Policy, cmpopts.IgnoreUnexported(Rule{})); diff != "" {
		t.Error(diff)
	}
	var shown []string
	for _, v := range c.Values() {
		if strings.HasPrefix(v.Key, "policy.rule.") {
			shown = append(shown, v.Key+" = "+v.String())
		}
	}
	wantShown := []string{
		`policy.rule."b".images = ["quay.io/*", "ghcr.io"]`, `policy.rule."b".users = ["alice"]`, `policy.rule."b".groups = ["staff"]`,
		`policy.rule."b".accounts = ["bio"]`, `policy.rule."b".partitions = ["gpu", "cpu"]`, `policy.rule."b".action = "deny"`,
		`policy.rule."a".images = ["*"]`, `policy.rule."a".action = "allow"`, `policy.rule."a".max_compressed = "20GB"`, `policy.rule."a".max_image = "1kB"`,
		`policy.rule."c".images = ["*"]`, `policy.rule."c".action = "deny"`,
	}
	if diff := cmp.Diff(wantShown, shown); diff != "" {
		t.Error(diff)
	}
}

// A rule that is not understood must not be left out, or be for everybody.
func TestBadRules(t *testing.T) {
	const head = "[[policy.rule]]\nname = 'x'\nimages = ['*']\naction = 'allow'\n"
	tests := []struct{ name, text, want string }{
		{"unknown key", head + "user = ['a']", `policy.rule "x": unknown key user`},
		{"key of a table below", head + "[policy.rule.more]\nx = 1", `policy.rule "x": unknown key more`},
		{"no name", "[[policy.rule]]\nimages = ['*']\naction = 'allow'", "policy.rule number 1: name is missing"},
		{"no images", "[[policy.rule]]\nname = 'x'\naction = 'allow'", `policy.rule "x": images is missing`},
		{"no action", "[[policy.rule]]\nname = 'x'\nimages = ['*']", `policy.rule "x": action is missing`},
		{"same name", head + head, `policy.rule "x": another rule has that name`},
		{"empty images", "[[policy.rule]]\nname = 'x'\nimages = []\naction = 'allow'", `policy.rule "x": images: no image`},
		{"tag", "[[policy.rule]]\nname = 'x'\nimages = ['quay.io/a:1']\naction = 'allow'", `policy.rule "x": images: "quay.io/a:1": rules are for repositories`},
		{"empty users", head + "users = []", `policy.rule "x": users: a name is missing`},
		{"empty accounts", head + "accounts = []", `policy.rule "x": accounts: a name is missing`},
		{"empty partition", head + "partitions = ['']", `policy.rule "x": partitions: a name is missing`},
		{"empty group", head + "groups = ['']", `policy.rule "x": groups: a name is missing`},
		{"action", "[[policy.rule]]\nname = 'x'\nimages = ['*']\naction = 'warn'", `policy.rule "x": action: "warn" is none of allow, deny`},
		{"size", head + "max_image = 'big'", `policy.rule "x": max_image: want a size`},
		{"no key", head + "signed_by = []", `policy.rule "x": signed_by: no key`},
		{"relative key", head + "signed_by = ['k.pub']", `policy.rule "x": signed_by: "k.pub" is not an absolute path`},
		{"signed_name alone", head + "signed_name = true", `policy.rule "x": signed_name without signed_by`},
		{"type", head + "users = 'alice'", `policy.rule "x": users: want a list`},
		{"one table", "[policy.rule]\nname = 'x'", "policy.rule: write each rule as a table of its own"},
		{"key in the table", "policy.rule = 'x'", "policy.rule: write each rule as a table of its own"},
		{"unknown key of the policy", "policy.rules = []", "unknown key policy.rules"},
		{"default", "policy.default = 'ask'", `policy.default: "ask" is none of allow, deny`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := write(t, map[string]string{"berth.toml": tt.text})
			_, err := Load(Source{Dir: dir})
			if err == nil || !strings.Contains(err.Error(), "/berth.toml: "+tt.want) || fault.Of(err) != fault.Site {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestUsersHaveNoRules(t *testing.T) {
	dir := write(t, map[string]string{"user.toml": "[[policy.rule]]\nname = 'x'\nimages = ['*']\naction = 'allow'\n"})
	_, err := Load(Source{User: filepath.Join(dir, "user.toml")})
	if err == nil || !strings.Contains(err.Error(), "policy.rule is for the site to set") || fault.Of(err) != fault.User {
		t.Errorf("got %v", err)
	}
}

// FuzzRules: what is read has all that a rule needs, whatever the file says.
func FuzzRules(f *testing.F) {
	f.Add("[[policy.rule]]\nname = 'x'\nimages = ['*']\naction = 'allow'\nusers = ['a']")
	f.Add("policy = {rule = [{name = 'x'}]}")
	f.Add("policy.rule = [1, {}]")
	f.Fuzz(func(t *testing.T, text string) {
		var tree map[string]any
		if _, err := toml.Decode(text, &tree); err != nil {
			return
		}
		c := defaults()
		_ = c.readRules(tree, "fuzz", true)
		for _, r := range c.Policy.Rules {
			if r.Name == "" || len(r.Images) == 0 || r.Action != Allow && r.Action != Deny {
				t.Errorf("%+v", r)
			}
		}
	})
}
