package main

import (
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/berth-hpc/berth/launcher"
)

// FuzzVariables: variables that a file has can be given to a program, are read
// back as they are, and are there once, over the host's.
func FuzzVariables(f *testing.F) {
	f.Add("A=1\n#B=2\n\n  C = x\nD\nA=2\n")
	f.Add("\ufeffA=\"x\"\r\nB=\\n\r\n")
	f.Add("=x\n")
	f.Add("A=\xff\n")
	f.Fuzz(func(t *testing.T, text string) {
		var v variables
		if v.read(strings.NewReader(text)) != nil {
			return
		}
		for _, line := range v {
			name, _, _ := strings.Cut(line, "=")
			if name == "" || strings.ContainsAny(name, " \t\n,") || strings.Contains(line, "\x00") || !utf8.ValidString(line) || len(line) > launcher.MaxVariable {
				t.Errorf("%.200q", line)
			}
		}
		if !strings.Contains(text, "\r") && !strings.Contains(text, "\ufeff") {
			var again variables
			if err := again.read(strings.NewReader(strings.Join(v, "\n"))); err != nil || !slices.Equal(v, again) {
				t.Errorf("%q, again %q, %v", v, again, err)
			}
		}
		environ := v.over([]string{"A=host", "PATH=/bin", "PWD=/x"})
		seen := map[string]string{}
		for _, e := range environ {
			name, value, _ := strings.Cut(e, "=")
			if _, twice := seen[name]; twice {
				t.Errorf("%q is there twice", name)
			}
			seen[name] = value
		}
		for i, line := range v {
			name, value, set := strings.Cut(line, "=")
			later := slices.ContainsFunc(v[i+1:], func(l string) bool { return strings.HasPrefix(l, name+"=") })
			if got, ok := seen[name]; set && !later && (!ok || got != value) {
				t.Errorf("%q is %q", line, got)
			}
		}
	})
}

// FuzzSchedulers: what Slurm and PBS print of nodes and jobs names each of
// Slurm's nodes once, and gives each a state.
func FuzzSchedulers(f *testing.F) {
	f.Add("n1|main|idle|none\nn1|other|idle|none\nn2|main|down*|broken|really\n", "1|RUNNING|None|{\"ready\":1,\"of\":2}\n2|COMPLETED||\n")
	f.Add("n1\n     state = free\n     jobs = 1.server\n\nn2\n     state = offline,down\n     comment = x\n", "")
	f.Fuzz(func(t *testing.T, text, queue string) {
		nodes, seen := parseSinfo(text), map[string]bool{}
		for _, n := range append(nodes, parsePbsnodes(text)...) {
			if strings.Contains(n.Node, "\n") || n.State == "" {
				t.Errorf("%+v", n)
			}
		}
		for i, n := range nodes {
			if seen[n.Node] {
				t.Errorf("%q is there twice", n.Node)
			}
			seen[n.Node] = true
			nodes[i].Job = []string{"1", "2", "3"}[i%3]
		}
		follow(nodes, queue)
		for _, n := range nodes {
			if n.State == "" || n.Report != nil && !strings.Contains(queue, n.Job+"|") {
				t.Errorf("%+v", n)
			}
		}
		if target, err := parseTarget(text); err == nil && strings.ContainsAny(target.job+target.step, " \n/") {
			t.Errorf("%+v", target)
		}
	})
}
