package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/alecthomas/kong"

	"github.com/berth-hpc/berth/cmd/internal/config"
	"github.com/berth-hpc/berth/testdata/docs"
	"github.com/berth-hpc/berth/warm"
)

// Each command line of ours in a document, also in the middle of its text, has
// a command and options that there are. What they do is shown by testdata/docs.
func TestDocumentedCommandLines(t *testing.T) {
	var grammar cli
	parser, err := kong.New(&grammar, kong.NoDefaultHelp())
	if err != nil {
		t.Fatal(err)
	}
	checked := 0
	check := func(d docs.Document, line int, text string) {
		for _, words := range ourCommands(text) {
			checked++
			if err := knownWords(parser.Model.Node, words); err != nil {
				t.Errorf("%s:%d: berth %s: %v", d.Name, line, strings.Join(words, " "), err)
			}
		}
	}
	for _, d := range readDocuments(t) {
		for _, s := range d.Spans {
			check(d, s.Line, s.Text)
		}
		for _, b := range d.Blocks {
			line := b.Line
			for text := range strings.Lines(b.Text) {
				check(d, line, strings.TrimSpace(text))
				line++
			}
		}
	}
	if checked < 200 {
		t.Errorf("only %d command lines were found: is the search still right?", checked)
	}
}

// ourCommands are the words after each berth of a line that is a command, up to
// what ends a simple command in a shell.
func ourCommands(text string) (all [][]string) {
	for _, part := range regexp.MustCompile(`\|\||&&|[|;<>]| #`).Split(text, -1) {
		words := strings.Fields(part)
		i := slices.IndexFunc(words, func(w string) bool { return w == "berth" || strings.HasSuffix(w, "bin/berth") })
		if i >= 0 && i+1 < len(words) && words[i+1] != "is" { // a message of PBS's hook begins so
			all = append(all, words[i+1:])
		}
	}
	return all
}

// knownWords walks words through the grammar: commands, then flags. After the
// first argument all further words that are no flags are taken.
func knownWords(node *kong.Node, words []string) error {
	arguments := false
	for i := 0; i < len(words) && words[i] != "--"; i++ {
		name, long := strings.CutPrefix(words[i], "--")
		name, _, assigned := strings.Cut(name, "=")
		next := child(node, words[i])
		switch {
		case long && (node.Name == "run" && arguments || node.Name == "exec"):
			return nil // it may be the command's in the container
		case long:
			f := flagOf(node, name)
			if f == nil {
				return fmt.Errorf("no option --%s", name)
			}
			if !f.IsBool() && !assigned {
				i++
			}
		case strings.HasPrefix(words[i], "-") || arguments:
		case next != nil:
			node = next
		case len(node.Children) > 0 && regexp.MustCompile(`^[a-z-]+$`).MatchString(words[i]):
			return fmt.Errorf("no command %s", words[i])
		default:
			arguments = true
		}
	}
	return nil
}

func flagOf(node *kong.Node, name string) *kong.Flag {
	for ; node != nil; node = node.Parent {
		for _, f := range node.Flags {
			if f.Name == name || f.Tag.Negatable != "" && "no-"+f.Name == name {
				return f
			}
		}
	}
	return nil
}

func child(node *kong.Node, name string) *kong.Node {
	for _, c := range node.Children {
		if c.Name == name && c.Type == kong.CommandNode {
			return c
		}
	}
	return nil
}

// Settings that a document shows are accepted as a site's, and lists for berth
// warm as such.
func TestDocumentedSettings(t *testing.T) {
	checked := 0
	for _, d := range readDocuments(t) {
		for _, b := range d.Blocks {
			if b.Language != "toml" {
				continue
			}
			checked++
			var err error
			if strings.Contains(b.Text, "[[image]]") {
				_, err = warm.Parse("images.toml", []byte(b.Text))
			} else {
				dir := t.TempDir()
				if err = os.WriteFile(filepath.Join(dir, "berth.toml"), []byte(b.Text), 0o600); err == nil {
					_, err = config.Load(config.Source{Dir: dir})
				}
			}
			if err != nil {
				t.Errorf("%s:%d: %v", d.Name, b.Line, err)
			}
		}
	}
	if checked < 10 {
		t.Errorf("only %d settings were found: is the search still right?", checked)
	}
}

func readDocuments(t *testing.T) []docs.Document {
	t.Helper()
	all, err := docs.ReadAll(root)
	if err != nil {
		t.Fatal(err)
	}
	return all
}
