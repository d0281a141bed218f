package launcher_test

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/berth-hpc/berth/launcher"
)

// What ExplainEnv says is what a task has.
func TestExplainIsWhatTasksHave(t *testing.T) {
	if !launcher.PrivateMounts(t) {
		return
	}
	b := newBed(t)
	users := b.users()
	host := []string{
		"PATH=/bin", "LANG=host", "LC_ALL=host", "A=host", "B=host", "KEPT=host", "DROP_1=host", "DROP_2=host", "DROPPED=host",
		"PMI_RANK=3", "SLURM_JOB_ID=7", "CUDA_VISIBLE_DEVICES=1", "USERSET=user", "SITESET=host", "EMPTY=", "LINES=a\tb", "BASH_FUNC_f%%=() { :; }",
	}
	image := []string{
		"PATH=/bin:/usr/bin", "A=image", "A=image again", "B=image", "KEPT=image", "NEW=a=b", "PMI_RANK=0", "PMIX_MCA_gds=hash", "SLURM_JOB_ID=image",
		"CUDA_VISIBLE_DEVICES=all", "USERSET=image", "LC_ALL=C", "nameless", "=x", "DROP_1=image", "ABSENT=image",
	}
	rules := launcher.EnvRules{
		Set: []string{"SITESET=site", "USERSET=site", "B=site", "ONLY=site", "ABSENT=site"}, Keep: []string{"KEPT", "NOTHING*"}, Drop: []string{"DROP_*", "PMI_*"},
	}
	for name, user := range map[string][]string{"nothing": nil, "some": {"USERSET", "LANG", "DROP_2", "A", "ABSENT"}} {
		cr := b.creation(users, false)
		cr.Request.Site.Env = rules
		cr.Config = imageConfig(t, image)
		c := b.create(cr)
		got := strings.Split(b.runWith(users, c, host, user, "/bin/env"), "\n")
		clean, err := launcher.ImageEnv(image)
		if err != nil {
			t.Fatal(err)
		}
		var want []string
		for _, v := range launcher.ExplainEnv(host, clean, user, rules) {
			if !v.Gone {
				want = append(want, v.Name+"="+v.Value)
			}
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%s:\ngot  %q\nwant %q", name, got, want)
		}
	}
}

func TestExplainSaysWhy(t *testing.T) {
	all := launcher.ExplainEnv([]string{"A=h", "B=h", "LANG=h", "X=h", "U=u", "PMI_RANK=1"}, []string{"A=i", "PMI_RANK=0", "U=i", "N=i"},
		[]string{"U"}, launcher.EnvRules{Set: []string{"B=s", "S=s", "U=s"}, Drop: []string{"X"}})
	var lines []string
	for _, v := range all {
		gone := ""
		if v.Gone {
			gone = "gone "
		}
		lines = append(lines, strings.TrimSpace(gone+v.From+" "+v.Name+"="+v.Value+" "+v.Why))
	}
	want := `image A=i replaces the host's
site B=s replaces the host's
gone host LANG=h the image may not have the host's language
image N=i
host PMI_RANK=1 kept, although the image sets it
site S=s
user U=u kept, although the site sets it
gone host X=h container.env.drop`
	if got := strings.Join(lines, "\n"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// Large and odd environments of images work, or say what is wrong.
func TestImageEnvironments(t *testing.T) {
	if !launcher.PrivateMounts(t) {
		return
	}
	b := newBed(t)
	users := b.users()
	var many []string
	for i := range 5000 {
		many = append(many, strings.Repeat("N", 1+i%20)+string(rune('A'+i%26))+strings.Repeat("x", i/26)+"="+strings.Repeat("v", 20))
	}
	large := strings.Repeat("v", 100<<10)
	for name, tc := range map[string]struct {
		env          []string
		script, want string
	}{
		"more than a message":  {[]string{"L1=" + large, "L2=" + large, "L3=" + large}, "echo ${#L1} ${#L3}", "102400 102400"},
		"the largest variable": {[]string{"L=" + strings.Repeat("v", launcher.MaxVariable-2)}, "echo ${#L}", "131069"},
		"too large":            {[]string{"L=" + strings.Repeat("v", launcher.MaxVariable-1)}, "true", "the image's variable L: it has 131072 bytes; Linux gives a program at most 131071"},
		"a long name":          {[]string{strings.Repeat("L", 1024) + "=1"}, "true", "its name has 1024 bytes"},
		"a NUL":                {[]string{"L=a\x00b"}, "true", "the image's variable L: it has a NUL byte"},
		"lines":                {[]string{"L=a\nM=b", "K=1"}, `echo "$L.$M.$K"`, "a\nM=b..1"},
		"odd names":            {[]string{"a.b-c%%=1", "é=2", "1=3"}, "", "a.b-c%%=1\né=2\n1=3"},
		"no names":             {[]string{"", "=", "==x", "L"}, "", "PATH=/bin"},
		"very many":            {many[:2600], "echo ${NA:-none}", "vvvvvvvvvvvvvvvvvvvv"},
	} {
		cr := b.creation(users, false)
		cr.Config = imageConfig(t, tc.env)
		got := ""
		if c, err := cr.Create(t.Context()); err != nil {
			got = err.Error()
		} else {
			command := []string{"/bin/sh", "-c", tc.script}
			if tc.script == "" { // a shell passes only names that are its own
				command = []string{"/bin/env"}
			}
			got = b.runWith(users, c, []string{"PATH=/bin"}, nil, command...)
			c.Close()
		}
		if !strings.Contains(got, tc.want) {
			t.Errorf("%s: %.200s\nwant %s", name, got, tc.want)
		}
	}
}

func imageConfig(t *testing.T, env []string) *os.File {
	t.Helper()
	text, err := json.Marshal(map[string]any{"config": map[string]any{"Env": env}})
	if err != nil {
		t.Fatal(err)
	}
	return file(t, string(text))
}
