// Package clidoc makes, from kong's model of a command line, what shells and
// man(1) want to know of it: completions (complete.go, shells.go) and manual
// pages (man.go). Nothing here is about one command in particular.
package clidoc

import (
	"strings"

	"github.com/alecthomas/kong"
)

// A Candidate is one way to go on with a command line.
type Candidate struct {
	Value string
	Help  string // one line; may be empty
}

// Complete returns how the last of words may go on. words come after the
// program's name; the last is what is being typed and may be empty. values
// returns what an argument can be, by its name; it may return nothing, and then
// shells offer files.
func Complete(app *kong.Node, words []string, values func(argument string) []Candidate) []Candidate {
	if len(words) == 0 {
		words = []string{""}
	}
	at := place{node: app, flags: true}
	for _, word := range words[:len(words)-1] {
		at.pass(word)
	}
	typed := words[len(words)-1]
	var found []Candidate
	for _, c := range at.candidates(typed, values) {
		if strings.HasPrefix(c.Value, typed) {
			found = append(found, c)
		}
	}
	return found
}

// A place is how far a command line has been read.
type place struct {
	node     *kong.Node
	position int        // of the next argument
	flags    bool       // words may still be flags
	wants    *kong.Flag // whose value comes next
	foreign  bool       // what follows is another program's
}

// pass reads one word that is complete.
func (p *place) pass(word string) {
	switch {
	case p.wants != nil:
		p.wants = nil
	case p.flags && word == "--":
		p.flags = false
	case p.flags && strings.HasPrefix(word, "-"):
		if f := p.flag(word); f != nil && !f.IsBool() && !f.IsCounter() {
			p.wants = f
		}
	default:
		p.argument(word)
	}
}

func (p *place) argument(word string) {
	for _, child := range p.node.Children {
		if child.Name == word {
			p.node, p.position = child, 0
			return
		}
	}
	if arg := p.next(); arg != nil && !arg.IsCumulative() {
		p.position++
	} else if arg != nil && arg.PassthroughMode != kong.PassThroughModeNone {
		p.foreign = true
	}
}

// next is the argument that is due.
func (p *place) next() *kong.Positional {
	if p.position < len(p.node.Positional) {
		return p.node.Positional[p.position]
	}
	return nil
}

// flag is the one that word names, if its value is to follow as another word.
func (p *place) flag(word string) *kong.Flag {
	for _, group := range p.node.AllFlags(false) {
		for _, f := range group {
			if word == "--"+f.Name || f.Short != 0 && word == "-"+string(f.Short) {
				return f
			}
		}
	}
	return nil
}

func (p *place) candidates(typed string, values func(string) []Candidate) []Candidate {
	if p.foreign {
		return nil
	}
	if p.wants != nil {
		return enum(p.wants.Value, "")
	}
	if name, _, ok := strings.Cut(typed, "="); ok && p.flags {
		if f := p.flag(name); f != nil {
			return enum(f.Value, name+"=")
		}
	}
	if p.flags && strings.HasPrefix(typed, "-") {
		return p.allFlags()
	}
	var found []Candidate
	for _, child := range p.node.Children {
		if !child.Hidden {
			found = append(found, Candidate{child.Name, child.Help})
		}
	}
	if arg := p.next(); arg != nil {
		found = append(found, append(enum(arg, ""), values(arg.Name)...)...)
	}
	return found
}

func enum(v *kong.Value, prefix string) (found []Candidate) {
	if v.Enum == "" {
		return nil
	}
	for _, value := range v.EnumSlice() {
		found = append(found, Candidate{Value: prefix + value})
	}
	return found
}

func (p *place) allFlags() (found []Candidate) {
	for _, group := range p.node.AllFlags(true) {
		for _, f := range group {
			found = append(found, Candidate{"--" + f.Name, f.Help})
			if f.Tag.Negatable != "" {
				found = append(found, Candidate{"--no-" + f.Name, f.Help})
			}
		}
	}
	return found
}
