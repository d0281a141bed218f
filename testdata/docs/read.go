package docs

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/ast"
	"github.com/yuin/goldmark/text"
)

// A Document is what of one file concerns tests.
type Document struct {
	Name   string // below the repository's root
	Blocks []Block
	Spans  []Span
}

// A Block is a code block, with what the comments before it say.
type Block struct {
	Line     int    // its first line's number
	Language string // as the fence names it; empty where it is only indented
	Text     string

	NotRun  string    // why its commands are not run; empty if they are
	Machine string    // where its commands run; empty for the submit host (users) or a node (root)
	Exit    int       // exit status of its last command
	Setup   []Command // run before it, and not shown
}

// A Span is code within a line of text.
type Span struct {
	Line int
	Text string
}

// Commands is what a reader would type of a block of language console.
func (b Block) Commands() ([]Command, error) { return parseCommands(b.Text, b.Line) }

// ReadAll reads the documents of a repository: README.md and docs/*.md.
func ReadAll(root string) ([]Document, error) {
	paths, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil {
		return nil, err
	}
	var all []Document
	for _, path := range append([]string{filepath.Join(root, "README.md")}, paths...) {
		source, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			return nil, err
		}
		d, err := read(name, source)
		if err != nil {
			return nil, err
		}
		all = append(all, d)
	}
	return all, nil
}

// reader walks through one document.
type reader struct {
	Document
	source []byte
	next   Block // what comments said since the last block
	noted  int   // the line of the first of them, or 0
}

func read(name string, source []byte) (Document, error) {
	r := &reader{Document: Document{Name: name}, source: source}
	r.reset()
	tree := goldmark.DefaultParser().Parse(text.NewReader(source))
	err := ast.Walk(tree, func(n ast.Node, entering bool) (ast.WalkStatus, error) {
		if !entering {
			return ast.WalkContinue, nil
		}
		return ast.WalkContinue, r.node(n)
	})
	if err == nil && r.noted > 0 {
		err = fmt.Errorf("%s:%d: no code block follows this comment", name, r.noted)
	}
	return r.Document, err
}

func (r *reader) reset() { r.next, r.noted = Block{}, 0 }

func (r *reader) node(n ast.Node) error {
	switch n := n.(type) {
	case *ast.HTMLBlock:
		return r.comment(n)
	case *ast.FencedCodeBlock:
		return r.block(n, string(n.Language(r.source)))
	case *ast.CodeBlock:
		return r.block(n, "")
	case *ast.CodeSpan:
		r.span(n)
	}
	return nil
}

func (r *reader) block(n ast.Node, language string) error {
	b := r.next
	b.Language, b.Text, b.Line = language, string(n.Lines().Value(r.source)), 1
	if n.Lines().Len() > 0 {
		b.Line = r.line(n.Lines().At(0).Start)
	}
	r.Blocks = append(r.Blocks, b)
	r.reset()
	if b.Setup != nil && language != "console" {
		return fmt.Errorf("%s:%d: nothing is set up for a block that is not run", r.Name, b.Line)
	}
	return nil
}

func (r *reader) span(n *ast.CodeSpan) {
	var s Span
	for c := n.FirstChild(); c != nil; c = c.NextSibling() {
		if t, ok := c.(*ast.Text); ok {
			if s.Line == 0 {
				s.Line = r.line(t.Segment.Start)
			}
			s.Text += string(t.Segment.Value(r.source))
		}
	}
	r.Spans = append(r.Spans, s)
}

func (r *reader) line(offset int) int { return 1 + bytes.Count(r.source[:offset], []byte("\n")) }

// comment takes what <!-- test: … --> says of the next block.
func (r *reader) comment(n *ast.HTMLBlock) error {
	html := string(n.Lines().Value(r.source))
	if n.HasClosure() {
		html += string(n.ClosureLine.Value(r.source))
	}
	words, ok := strings.CutPrefix(strings.TrimSpace(html), "<!-- test:")
	if !ok {
		return nil
	}
	line := r.line(n.Lines().At(0).Start)
	if r.noted == 0 {
		r.noted = line
	}
	note := strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(words), "-->"))
	if err := r.next.note(note, line); err != nil {
		return fmt.Errorf("%s:%d: %w", r.Name, line, err)
	}
	return nil
}

func (b *Block) note(note string, line int) (err error) {
	word, rest, _ := strings.Cut(note, " ")
	switch {
	case strings.HasPrefix(note, "setup\n"):
		b.Setup, err = parseCommands(strings.TrimPrefix(note, "setup\n"), line+1)
		return err
	case strings.HasPrefix(note, "not run: "):
		b.NotRun = strings.TrimPrefix(note, "not run: ")
	case word == "on" && rest != "":
		b.Machine = rest
	case word == "exit":
		b.Exit, err = strconv.Atoi(rest)
		return err
	default:
		return fmt.Errorf("tests know no comment %q", note)
	}
	return nil
}
