package main

import (
	"slices"
	"strings"
	"testing"
)

func TestEnvFile(t *testing.T) {
	for text, want := range map[string]string{
		"":                              "|",
		"A=1\nB=2\n":                    "A=1 B=2|A B",
		"# c\n\n  # d\n\tA=1":           "A=1|A",
		"A=\"x y\" # no comment\n":      "A=\"x y\" # no comment|A",
		"A= x \n":                       "A= x |A",
		"A=b=c\nB=$A\n":                 "A=b=c B=$A|A B",
		"A\nB=1":                        "B=1|A B",
		"\ufeffA=1\r\nB=2\r\n":          "A=1 B=2|A B",
		"A=\n":                          "A=|A",
		"export=1":                      "export=1|export",
		"A=1\nA=2":                      "A=2|A A",
		"BASH_FUNC_x%%=() { :; }":       "BASH_FUNC_x%%=() { :; }|BASH_FUNC_x%%",
		"A=" + strings.Repeat("x", 1e5): "A=" + strings.Repeat("x", 1e5) + "|A",
	} {
		var v variables
		if err := v.read(strings.NewReader(text)); err != nil {
			t.Errorf("%.40q: %v", text, err)
		}
		if got := strings.Join(v.over(nil), " ") + "|" + strings.Join(v.names(), " "); got != want {
			t.Errorf("%.40q: %.80q, want %.80q", text, got, want)
		}
	}
}

func TestEnvFileErrors(t *testing.T) {
	for text, want := range map[string]string{
		"A=1\n=x\n":                        "line 2: the name is empty",
		"# c\nexport A=1":                  `line 2: the name "export A" has a space or a comma`,
		"A B":                              `line 1: the name "A B" has a space or a comma`,
		"A,B=1":                            `line 1: the name "A,B" has a space or a comma`,
		"A=\xff":                           "line 1: it is no UTF-8 text",
		"A=" + strings.Repeat("x", 3e5):    "line 1: it has 300002 bytes; Linux gives a program at most 131071 in one variable",
		"A=1\nB=\x00":                      "line 2: it has a NUL byte",
		"A=1\n" + strings.Repeat("x", 2e6): "line 2: bufio.Scanner: token too long",
	} {
		err := new(variables).read(strings.NewReader(text))
		if err == nil || err.Error() != want {
			t.Errorf("%.40q: %v, want %s", text, err, want)
		}
	}
}

// The last of several values counts, once, whoever set the first.
func TestVariablesOverTheHosts(t *testing.T) {
	var v variables
	for _, text := range []string{"A=1", "B", "A=2", "C=3"} {
		if err := v.add(text); err != nil {
			t.Fatal(err)
		}
	}
	got := v.over([]string{"A=host", "B=host", "PWD=/x", "OLDPWD=/y", "Z=host"})
	if want := []string{"B=host", "Z=host", "A=2", "C=3"}; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}
