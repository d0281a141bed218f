package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/alecthomas/kong"

	"github.com/berth-hpc/berth/cmd/internal/clidoc"
	"github.com/berth-hpc/berth/cmd/internal/config"
)

// completionCmd prints what makes a shell complete Berth's command lines.
type completionCmd struct {
	Shell string `arg:"" enum:"bash,zsh,fish" name:"shell" help:"bash, zsh or fish."`
}

// Run prints a script to be sourced.
func (c *completionCmd) Run(s *session) error {
	script, err := clidoc.Script(c.Shell)
	if err != nil {
		return err
	}
	_, err = fmt.Fprint(s.stdout, script)
	return err
}

// completeCmd answers a shell that completes a command line.
type completeCmd struct {
	Words []string `arg:"" optional:"" passthrough:""`
}

// Run prints a line for each way to go on: the word, a tab and what it means.
func (c *completeCmd) Run(ctx context.Context, s *session, line *kong.Context) error {
	words := c.Words
	if len(words) > 0 && words[0] == "--" {
		words = words[1:]
	}
	found := clidoc.Complete(line.Model.Node, words, func(argument string) []clidoc.Candidate {
		return s.completeArgument(ctx, argument)
	})
	for _, f := range found {
		if _, err := fmt.Fprintf(s.stdout, "%s\t%s\n", f.Value, f.Help); err != nil {
			return err
		}
	}
	return nil
}

// completeArgument lists what an argument of that name can be. A shell has no
// place for errors: what can't be listed is left out.
func (s *session) completeArgument(ctx context.Context, argument string) (found []clidoc.Candidate) {
	switch argument {
	case "image", "source":
	case "container", "name":
		return s.containerNames()
	default:
		return nil
	}
	cfg, err := s.settings()
	if err != nil {
		return nil
	}
	held, err := s.heldImages(ctx, cfg, tier{})
	if err != nil {
		return nil
	}
	for _, h := range held {
		for _, name := range h.Record.References {
			found = append(found, clidoc.Candidate{Value: printable(name), Help: megabytes(h.Size)})
		}
	}
	if argument == "source" {
		found = append(found, s.containerNames()...)
	}
	return found
}

func (s *session) containerNames() (found []clidoc.Candidate) {
	_, places, err := s.containers()
	if err != nil {
		return nil
	}
	for _, place := range places {
		list, err := place.List()
		if err != nil {
			continue
		}
		for _, c := range list {
			found = append(found, clidoc.Candidate{Value: c.Name, Help: printable(c.Reference)})
		}
	}
	return found
}

// manCmd writes the manual pages, for packages.
type manCmd struct {
	Dir  string `arg:"" help:"The folder for them; made if need be."`
	Date string `placeholder:"YYYY-MM-DD" help:"What the pages give as their date."`
}

// Run writes a page for each command, and one for berth.toml.
func (c *manCmd) Run(line *kong.Context) error {
	head := clidoc.Head{Version: berthVersion(), Date: c.Date}
	pages := clidoc.Pages(line.Model.Node, head, description, []clidoc.Section{{
		Title: "FILES",
		Text:  config.Dir + "/berth.toml, " + config.Dir + "/conf.d/*.toml: the site's settings.\n\n~/.config/berth/berth.toml: a user's.",
	}})
	var settings []clidoc.Setting
	for _, s := range config.Describe() {
		settings = append(settings, clidoc.Setting{Key: s.Key, Default: s.Sample, Help: s.Help})
	}
	pages = append(pages, clidoc.SettingsPage("berth.toml", head, config.Intro, settings))
	if err := os.MkdirAll(c.Dir, 0o755); err != nil {
		return err
	}
	for _, p := range pages {
		if err := os.WriteFile(filepath.Join(c.Dir, p.Name), []byte(p.Text), 0o644); err != nil {
			return err
		}
	}
	return nil
}
