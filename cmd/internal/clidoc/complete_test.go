package clidoc

import (
	"slices"
	"testing"

	"github.com/alecthomas/kong"
)

type grammar struct {
	Level string `enum:"low,high" default:"low" help:"How."`
	Run   struct {
		Image   string   `arg:""`
		Command []string `arg:"" optional:"" passthrough:""`
		Name    string   `short:"n"`
		Home    *bool    `negatable:""`
		Secret  bool     `hidden:""`
	} `cmd:""`
	Node struct {
		Prepare struct{} `cmd:""`
		Worker  struct{} `cmd:"" hidden:""`
	} `cmd:""`
	Rm struct {
		Images []string `arg:"" name:"image"`
	} `cmd:""`
}

func TestComplete(t *testing.T) {
	parser, err := kong.New(&grammar{}, kong.NoDefaultHelp())
	if err != nil {
		t.Fatal(err)
	}
	values := func(argument string) []Candidate {
		return map[string][]Candidate{"image": {{Value: "debian:12"}, {Value: "alpine:3"}}}[argument]
	}
	for _, tc := range []struct {
		name        string
		words, want []string
	}{
		{"commands", []string{"r"}, []string{"run", "rm"}},
		{"nothing typed", nil, []string{"run", "node", "rm"}},
		{"hidden ones are left out", []string{"node", ""}, []string{"prepare"}},
		{"flags, of the program too", []string{"run", "--"}, []string{"--level", "--name", "--home", "--no-home"}},
		{"a value in the same word", []string{"--level=h"}, []string{"--level=high"}},
		{"a value in the next", []string{"--level", "h"}, []string{"high"}},
		{"a free value", []string{"run", "-n", ""}, nil},
		{"an argument", []string{"run", "de"}, []string{"debian:12"}},
		{"after a flag with a value", []string{"run", "-n", "x", "de"}, []string{"debian:12"}},
		{"after a switch", []string{"run", "--home", "de"}, []string{"debian:12"}},
		{"after an equal sign", []string{"run", "--name=x", "de"}, []string{"debian:12"}},
		{"of several", []string{"rm", "debian:12", "al"}, []string{"alpine:3"}},
		{"no flags after --", []string{"rm", "--", "--"}, nil},
		{"another program's", []string{"run", "debian:12", "ls", "--na"}, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var got []string
			for _, c := range Complete(parser.Model.Node, tc.words, values) {
				got = append(got, c.Value)
			}
			if !slices.Equal(got, tc.want) {
				t.Errorf("%q, want %q", got, tc.want)
			}
		})
	}
}

func TestEscape(t *testing.T) {
	p := newPage("x", "1", "y", Head{})
	p.words(`.begins 'quoted' with-minus back\slash`)
	want := ".TH X 1 \"\" \"berth \"\n.SH NAME\nx \\- y\n\\&.begins \\(aqquoted\\(aq with\\-minus back\\eslash\n"
	if got := p.done().Text; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
