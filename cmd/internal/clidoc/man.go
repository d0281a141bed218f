package clidoc

import (
	"fmt"
	"strings"

	"github.com/alecthomas/kong"
)

// A Head is what the manual pages of one build have in common.
type Head struct {
	Version string
	Date    string // YYYY-MM-DD
}

// A Page is one file of a manual.
type Page struct {
	Name string // as in berth-run.1
	Text string // roff
}

// Pages returns one page for the program and one for each of its commands;
// commands of commands are sections of theirs. description and more come after
// the synopsis and at the end of the program's own page.
func Pages(app *kong.Node, head Head, description string, more []Section) []Page {
	main := newPage(app.Name, "1", "run container images on clusters, or anywhere else", head)
	main.section("SYNOPSIS")
	main.line(".B " + escape(app.Name))
	main.line("[\\fIoptions\\fR] \\fIcommand\\fR [\\fIargument\\fR ...]")
	main.section("DESCRIPTION")
	main.text(description)
	main.section("COMMANDS")
	pages, also := []Page{}, []string{}
	for _, c := range app.Children {
		if c.Hidden {
			continue
		}
		name := app.Name + "-" + c.Name
		main.item("\\fB"+escape(name)+"\\fR(1)", c.Help)
		pages = append(pages, commandPage(app, c, head))
		also = append(also, name+"(1)")
	}
	main.flags("OPTIONS", app.Flags)
	for _, s := range more {
		main.section(s.Title)
		main.text(s.Text)
	}
	main.seeAlso(append(also, app.Name+".toml(5)"))
	return append([]Page{main.done()}, pages...)
}

// A Section is a part of a page: paragraphs are apart by an empty line.
type Section struct{ Title, Text string }

func commandPage(app, c *kong.Node, head Head) Page {
	p := newPage(app.Name+"-"+c.Name, "1", sentence(c.Help), head)
	p.section("SYNOPSIS")
	p.synopsis(c)
	p.section("DESCRIPTION")
	p.command(c, "")
	p.seeAlso([]string{app.Name + "(1)", app.Name + ".toml(5)"})
	return p.done()
}

// synopsis prints a line for each command that does something.
func (p *page) synopsis(c *kong.Node) {
	first := true
	for _, leaf := range leaves(c) {
		if !first {
			p.line(".br")
		}
		first = false
		p.line(".B " + escape(leaf.FullPath()))
		rest := "[\\fIoptions\\fR]"
		for _, arg := range leaf.Positional {
			rest += " " + argument(arg)
		}
		p.line(rest)
	}
}

func leaves(c *kong.Node) []*kong.Node {
	if c.Leaf() {
		return []*kong.Node{c}
	}
	return c.Leaves(true)
}

func argument(arg *kong.Positional) string {
	text := "\\fI" + escape(strings.ToUpper(arg.Name)) + "\\fR"
	if arg.IsCumulative() {
		text += " ..."
	}
	if !arg.Required {
		text = "[" + text + "]"
	}
	return text
}

// command describes a command, and those below it.
func (p *page) command(c *kong.Node, title string) {
	if title != "" {
		p.line(".SS " + escape(title))
	}
	p.text(c.Help)
	for _, arg := range c.Positional {
		p.item("\\fI"+escape(strings.ToUpper(arg.Name))+"\\fR", arg.Help)
	}
	p.flagItems(c.Flags)
	for _, child := range c.Children {
		if !child.Hidden {
			p.command(child, child.FullPath())
		}
	}
}

func (p *page) flags(title string, flags []*kong.Flag) {
	p.section(title)
	p.flagItems(flags)
}

func (p *page) flagItems(flags []*kong.Flag) {
	for _, f := range flags {
		if !f.Hidden {
			p.item(flagTerm(f), f.Help)
		}
	}
}

func flagTerm(f *kong.Flag) string {
	name := f.Name
	if f.Tag.Negatable != "" {
		name = "[no-]" + name
	}
	term := "\\fB" + escape("--"+name) + "\\fR"
	if f.Short != 0 {
		term = "\\fB" + escape("-"+string(f.Short)) + "\\fR, " + term
	}
	if !f.IsBool() && !f.IsCounter() {
		term += "=\\fI" + escape(strings.Trim(f.FormatPlaceHolder(), `"`)) + "\\fR"
	}
	return term
}

// A Setting is one entry of a page for a file of settings.
type Setting struct{ Key, Default, Help string }

// SettingsPage returns the page, in section 5, of a file of settings.
func SettingsPage(name string, head Head, intro string, settings []Setting) Page {
	p := newPage(name, "5", "settings of Berth", head)
	p.section("DESCRIPTION")
	p.text(intro)
	p.section("SETTINGS")
	for _, s := range settings {
		p.item("\\fB"+escape(s.Key)+"\\fR = "+escape(s.Default), s.Help)
	}
	p.seeAlso([]string{"berth(1)", "berth-config(1)"})
	return p.done()
}

// A page is one that is being written.
type page struct {
	name string
	b    strings.Builder
}

func newPage(name, section, what string, head Head) *page {
	p := &page{name: name + "." + section}
	p.line(fmt.Sprintf(".TH %s %s %q %q", escape(strings.ToUpper(name)), section, head.Date, "berth "+head.Version))
	p.section("NAME")
	p.line(escape(name) + " \\- " + escape(what))
	return p
}

func (p *page) done() Page           { return Page{p.name, p.b.String()} }
func (p *page) line(s string)        { p.b.WriteString(s + "\n") }
func (p *page) section(title string) { p.line(".SH " + title) }
func (p *page) item(term, help string) {
	p.line(".TP")
	p.line(term)
	p.words(help)
}

func (p *page) seeAlso(names []string) {
	p.section("SEE ALSO")
	for i, name := range names {
		title, section, _ := strings.Cut(name, "(")
		text := ".BR " + escape(title) + " (" + section
		if i < len(names)-1 {
			text += " ,"
		}
		p.line(text)
	}
}

// text prints paragraphs.
func (p *page) text(s string) {
	for i, paragraph := range strings.Split(strings.TrimSpace(s), "\n\n") {
		if i > 0 {
			p.line(".PP")
		}
		p.words(paragraph)
	}
}

// words prints filled text in short lines. Nothing at the start of one can be
// taken for a request.
func (p *page) words(s string) {
	const width = 72
	line := ""
	for _, word := range strings.Fields(s) {
		word = escape(word)
		if line != "" && len(line)+len(word) > width {
			p.line(guard(line))
			line = ""
		}
		line = strings.TrimPrefix(line+" "+word, " ")
	}
	if line != "" {
		p.line(guard(line))
	}
}

func guard(line string) string {
	if line[0] == '.' || line[0] == '\'' {
		return "\\&" + line
	}
	return line
}

// escape writes what roff would take for its own; minus signs can be copied
// from a page to a command line.
func escape(s string) string {
	return strings.NewReplacer(`\`, `\e`, "-", `\-`, "'", `\(aq`, "`", `\(ga`, "^", `\(ha`, "~", `\(ti`, "…", "...").Replace(s)
}

// sentence is a help text as it stands after a name: without its full stop.
func sentence(help string) string {
	s := strings.TrimSuffix(help, ".")
	return strings.ToLower(s[:min(1, len(s))]) + s[min(1, len(s)):]
}
