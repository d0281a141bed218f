package docs

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const sample = "# Title\n\nSee `berth images`.\n\n" +
	"<!-- test: setup\n# mkdir /x\n-->\n<!-- test: on n2 -->\n<!-- test: exit 64 -->\n" +
	"```console\n$ cat job.sh\n#!/bin/sh\ntrue\n# berth a \\\n    b\n```\n\n1. list\n\n       indented\n\n" +
	"<!-- a remark -->\n<!-- test: not run: it needs a GPU -->\n```console\n$ x\n```\n"

func TestRead(t *testing.T) {
	d, err := read("sample.md", []byte(sample))
	if err != nil {
		t.Fatal(err)
	}
	want := Document{
		Name: "sample.md", Spans: []Span{{Line: 3, Text: "berth images"}},
		Blocks: []Block{
			{
				Line: 11, Language: "console", Text: "$ cat job.sh\n#!/bin/sh\ntrue\n# berth a \\\n    b\n",
				Machine: "n2", Exit: 64, Setup: []Command{{Line: 6, Root: true, Text: "mkdir /x"}},
			},
			{Line: 20, Text: "indented\n"},
			{Line: 25, Language: "console", Text: "$ x\n", NotRun: "it needs a GPU"},
		},
	}
	if diff := cmp.Diff(want, d); diff != "" {
		t.Fatal(diff)
	}
	got, err := d.Blocks[0].Commands()
	commands := []Command{
		{Line: 11, Text: "cat job.sh", Output: "#!/bin/sh\ntrue\n"},
		{Line: 14, Root: true, Text: "berth a \\\n    b"},
	}
	if diff := cmp.Diff(commands, got); err != nil || diff != "" {
		t.Errorf("%v, %s", err, diff)
	}
	if got[0].file() != "job.sh" || got[1].file() != "" {
		t.Errorf("files: %q, %q", got[0].file(), got[1].file())
	}
}

func TestReadRefuses(t *testing.T) {
	for comment, want := range map[string]string{
		"<!-- test: on n1 -->\n\ntext":         "no code block follows",
		"<!-- test: nonsense -->":              "know no comment",
		"<!-- test: not run -->\n```\nx\n```":  "know no comment",
		"<!-- test: setup\nmkdir x\n-->":       "before the first prompt",
		"<!-- test: setup\n$ x\n-->\n```\n```": "nothing is set up",
		"<!-- test: exit soon -->\n```\n```\n": "invalid syntax",
	} {
		if _, err := read("x.md", []byte(comment)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", comment, err)
		}
	}
}

func TestMatches(t *testing.T) {
	for _, tc := range []struct {
		shown, printed string
		want           bool
	}{
		{"", "anything\n", true},
		{"a b\n", "a    b  \n", true},
		{"a b\n", "ab\n", false},
		{"a\n", "a", true},
		{"a\n", "a\nb\n", false},
		{"b\n", "a\nb\n", false},
		{"a\n…\n", "a\nb\nc\n", true},
		{"…\nc\n", "a\nb\nc\n", true},
		{"…\na\n", "a\n", true},
		{"sha256:… (x*)\n", "sha256:0a1b (x*)\n", true},
		{"sha256:… x\n", "sha256:0a1b\nx\n", false},
		{"a\nc\n", "a\nb\nc\n", false},
	} {
		if got := matches(tc.shown, tc.printed); got != tc.want {
			t.Errorf("%q shown, %q printed: %v", tc.shown, tc.printed, got)
		}
	}
}
