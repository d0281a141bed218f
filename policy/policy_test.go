package policy

import (
	"regexp"
	"strings"
	"testing"

	"github.com/berth-hpc/berth/fault"
)

func TestMatches(t *testing.T) {
	tests := []struct {
		pattern, registry, repository string
		want                          bool
	}{
		{"*", "quay.io", "a/b/c", true},
		{"quay.io", "quay.io", "a/b", true},
		{"quay.io", "quay.io:5000", "a/b", false},
		{"quay.io", "quay.io.example.org", "a", false},
		{"quay.io/*", "quay.io", "a/b", true},
		{"quay.io/biocontainers/*", "quay.io", "biocontainers/samtools", true},
		{"quay.io/biocontainers/*", "quay.io", "biocontainers/a/b", true},
		{"quay.io/biocontainers/*", "quay.io", "biocontainersx/a", false},
		{"quay.io/biocontainers/*", "docker.io", "quay.io/biocontainers/a", false},
		{"*/biocontainers/*", "quay.io", "biocontainers/a", true},
		{"*.example.org/*", "r.example.org", "a", true},
		{"*.example.org/*", "evil.org", "x.example.org/a", false},
		{"*.example.org", "example.org", "a", false},
		{"quay.io/a?c", "quay.io", "abc", true},
		{"quay.io/a?c", "quay.io", "ac", false},
		{"quay.io/*a*b", "quay.io", "xxaxxab", true},
		{"quay.io/*a*b", "quay.io", "xxaxxabc", false},
		// All spellings of a server's name are one.
		{"quay.io", "QUAY.io", "a", true},
		{"quay.io", "quay.io:443", "a", true},
		{"quay.io", "quay.io:0443", "a", true},
		{"quay.io", "quay.io.", "a", true},
		{"quay.io", "quay.io.:443", "a", true},
		{"Quay.io:443/a", "quay.io", "a", true},
		{"docker.io", "index.docker.io:443", "library/a", true},
		{"docker.io/library/*", "registry-1.docker.io.", "library/a", true},
		{"[::1]:5000", "[::1]:5000", "a", true},
	}
	for _, tt := range tests {
		t.Run(tt.pattern+" "+tt.registry+"/"+tt.repository, func(t *testing.T) {
			if got := (Image{tt.registry, tt.repository}).Matches(tt.pattern); got != tt.want {
				t.Errorf("got %v", got)
			}
		})
	}
}

func TestCheckPattern(t *testing.T) {
	for _, good := range []string{"*", "quay.io", "quay.io/*", "localhost/x", "localhost", "*/x/*", "host:5000", "r*/x"} {
		if err := CheckPattern(good); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for _, bad := range []string{"", "/", "/x", "quay.io/", "docker://quay.io/x", "quay.io/x:1", "quay.io/x@sha256:1", "quay.io/X", "ubuntu"} {
		if CheckPattern(bad) == nil {
			t.Errorf("%q: no error", bad)
		}
	}
}

// FuzzMatch compares the matcher with the regular expression that a pattern
// stands for.
func FuzzMatch(f *testing.F) {
	for _, s := range []string{"*|a", "a*b|axxb", "?|", "**a*?|aab", "a.c|abc"} {
		pattern, text, _ := strings.Cut(s, "|")
		f.Add(pattern, text)
	}
	f.Fuzz(func(t *testing.T, pattern, s string) {
		if len(pattern) > 100 || len(s) > 1000 || strings.Trim(pattern+s, "abc/.*?-0123456789") != "" {
			return
		}
		expr := regexp.QuoteMeta(pattern)
		expr = strings.ReplaceAll(strings.ReplaceAll(expr, `\*`, ".*"), `\?`, ".")
		if got, want := match(pattern, s), regexp.MustCompile("^(?s:"+expr+")$").MatchString(s); got != want {
			t.Errorf("match(%q, %q) = %v", pattern, s, got)
		}
	})
}

func TestDecide(t *testing.T) {
	const file = "/etc/berth/berth.toml"
	p := &Policy{
		Deny: true, DefaultFrom: file, Contact: "hpc@example.org",
		Rules: []Rule{
			{Name: "no latest mess", From: file, Images: []string{"docker.io/evil/*"}, Deny: true},
			{Name: "staff", From: file, Images: []string{"*"}, Groups: []string{"staff", "77"}},
			{Name: "alice", From: file, Images: []string{"ghcr.io"}, Users: []string{"alice", "1002"}},
			{Name: "bio", From: file, Images: []string{"quay.io/biocontainers/*"}, MaxCompressed: 100, MaxImage: 50},
		},
	}
	bob := Subject{UID: 1000, User: "bob", Groups: []string{"users", "100"}}
	tests := []struct {
		name  string
		image Image
		who   Subject
		by    string
		error string // "" for none
	}{
		{"first rule wins", Image{"docker.io", "evil/x"}, Subject{UID: 1, User: "a", Groups: []string{"staff"}}, `rule "no latest mess" (` + file + `)`, `rule "no latest mess" (` + file + `) denies it`},
		{"group by name", Image{"docker.io", "x"}, Subject{UID: 1, Groups: []string{"staff"}}, `rule "staff" (` + file + `)`, ""},
		{"group by number", Image{"docker.io", "x"}, Subject{UID: 1, Groups: []string{"77"}}, `rule "staff" (` + file + `)`, ""},
		{"user by name", Image{"ghcr.io", "x"}, Subject{UID: 1, User: "alice"}, `rule "alice" (` + file + `)`, ""},
		{"user by number", Image{"ghcr.io", "x"}, Subject{UID: 1002, User: "carol"}, `rule "alice" (` + file + `)`, ""},
		{"a name like another's number", Image{"ghcr.io", "x"}, Subject{UID: 1, User: "1002"}, "policy.default (" + file + ")", "no rule allows it, and policy.default (" + file + ") denies"},
		{"other user", Image{"ghcr.io", "x"}, bob, "policy.default (" + file + ")", "no rule allows it"},
		{"no name at all", Image{"ghcr.io", "x"}, Subject{UID: 5}, "policy.default (" + file + ")", "no rule allows it"},
		{"image", Image{"quay.io", "biocontainers/x"}, bob, `rule "bio" (` + file + `)`, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := p.Decide(tt.image, tt.who)
			if d.By() != tt.by {
				t.Errorf("by %s", d.By())
			}
			checkDenial(t, d.Err(), tt.error)
		})
	}
	bio := p.Decide(Image{"quay.io", "biocontainers/x"}, bob)
	checkDenial(t, bio.Compressed(100), "")
	checkDenial(t, bio.Compressed(101), `its layers take 101 bytes, and rule "bio" (`+file+`) allows 100`)
	checkDenial(t, bio.Size(50), "")
	checkDenial(t, bio.Size(51), `the converted image takes 51 bytes, and rule "bio" (`+file+`) allows 50`)
	if len(bio.Passed) != 3 || bio.Passed[1].What != "groups" || bio.Passed[0].What != "images" {
		t.Errorf("passed %+v", bio.Passed)
	}
	checkDenial(t, p.Pulling("x"), "")
	p.ReadOnly, p.ReadOnlyFrom = true, "/etc/berth/conf.d/x.toml"
	checkDenial(t, p.Pulling("x"), "policy.read_only (/etc/berth/conf.d/x.toml) lets nothing new be pulled")
}

// checkDenial wants a user's fault that says why and whom to ask.
func checkDenial(t *testing.T, err error, why string) {
	t.Helper()
	switch {
	case why == "" && err != nil:
		t.Error(err)
	case why == "":
	case err == nil:
		t.Error("no denial")
	case !strings.Contains(err.Error(), why) || fault.Of(err) != fault.User || !strings.Contains(fault.Remedy(err), "hpc@example.org"):
		t.Errorf("%v (%s)", err, fault.Remedy(err))
	}
}

func TestDecideByJob(t *testing.T) {
	p := &Policy{Contact: "hpc@example.org", Deny: true, Rules: []Rule{
		{Name: "none for guests", Images: []string{"*"}, Accounts: []string{"guests"}, Deny: true},
		{Name: "gpu", Images: []string{"nvcr.io"}, Accounts: []string{"Bio", "ai"}, Partitions: []string{"gpu", "dgx"}},
		{Name: "open", Images: []string{"quay.io"}},
	}}
	nvidia, quay := Image{"nvcr.io", "x"}, Image{"quay.io", "x"}
	tests := []struct {
		name    string
		image   Image
		job     *Job
		allowed bool
		unknown bool
		by      string
	}{
		{"both", nvidia, &Job{"ai", "dgx"}, true, false, "gpu"},
		{"lower case", nvidia, &Job{"bio", "gpu"}, true, false, "gpu"},
		{"account only", nvidia, &Job{"ai", "cpu"}, false, false, ""},
		{"partition only", nvidia, &Job{"theo", "gpu"}, false, false, ""},
		{"no account", nvidia, &Job{"", "gpu"}, false, false, ""},
		{"denied", nvidia, &Job{"guests", "gpu"}, false, false, "none for guests"},
		{"another image", quay, &Job{"theo", "cpu"}, true, false, "open"},
		// While the job is not known a rule that denies does, and one that
		// allows does not.
		{"unknown", nvidia, nil, false, true, "none for guests"},
		{"unknown, another image", quay, nil, false, true, "none for guests"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := p.Decide(tt.image, Subject{Job: tt.job})
			name := ""
			if d.Rule != nil {
				name = d.Rule.Name
			}
			if d.Allowed() != tt.allowed || d.JobUnknown != tt.unknown || name != tt.by {
				t.Errorf("allowed %v, unknown %v, by %q", d.Allowed(), d.JobUnknown, name)
			}
		})
	}
	p.Rules = p.Rules[1:]
	if d := p.Decide(nvidia, Subject{}); d.Allowed() || !d.JobUnknown {
		t.Errorf("a rule that allows accounts allows an unknown one: %+v", d)
	}
	if d := p.Decide(quay, Subject{}); !d.Allowed() || d.JobUnknown {
		t.Errorf("a rule for other images wants to know the job: %+v", d)
	}
}

func TestZeroPolicyAllowsAll(t *testing.T) {
	var p Policy
	if p.Restricts() || p.Decide(Image{"x", "y"}, Subject{}).Err() != nil || p.Pulling("x") != nil {
		t.Error("the zero policy denies something")
	}
}
