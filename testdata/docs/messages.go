package docs

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"unicode"
)

// Blank stands in a message for what differs from time to time.
const Blank = "…"

// A Message is one that docs/troubleshooting.md explains.
type Message struct {
	Wording
	Section string // its heading
	Who     string // can mend it, in words
}

// Messages reads the tables of docs/troubleshooting.md: what stands in backticks
// in the first column of each.
func Messages(root string) (all []Message, err error) {
	text, err := os.ReadFile(filepath.Join(root, "docs", "troubleshooting.md"))
	if err != nil {
		return nil, err
	}
	section, table := "", false
	for line := range strings.Lines(string(text)) {
		if title, ok := strings.CutPrefix(line, "## "); ok {
			section = strings.TrimSpace(title)
		}
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), " | ")
		switch {
		case !strings.HasPrefix(line, "|"):
			table = false
		case strings.TrimSpace(cells[0]) == "message":
			table = true
		case table:
			for _, m := range regexp.MustCompile("`(.+?)`").FindAllStringSubmatch(cells[0], -1) {
				all = append(all, Message{NewWording(m[1]), section, strings.TrimSpace(cells[len(cells)-1])})
			}
		}
	}
	if len(all) < 100 {
		return nil, fmt.Errorf("only %d messages were found: are the tables still read?", len(all))
	}
	return all, nil
}

// Explain returns the message that text is, which may have steps in front that
// the message leaves out ("pull x: ").
func Explain(all []Message, text string) (Message, bool) {
	for _, m := range all {
		if m.Is(text) || NewWording(Blank+": "+m.Text).Is(text) {
			return m, true
		}
	}
	return Message{}, false
}

// A Wording is a text with blanks.
type Wording struct {
	Text    string
	Letters int

	parts []string // between blanks
}

// NewWording returns the wording of a text.
func NewWording(text string) Wording {
	return Wording{text, Letters(text), strings.Split(text, Blank)}
}

// Is reports whether text is what w says.
func (w Wording) Is(text string) bool {
	_, ok := w.Fill(text)
	return ok
}

// Fill returns what text has for w's blanks, if it is what w says.
func (w Wording) Fill(text string) (filled []string, ok bool) {
	last := len(w.parts) - 1
	rest, ok := strings.CutPrefix(text, w.parts[0])
	if !ok || last == 0 {
		return nil, ok && rest == ""
	}
	for _, part := range w.parts[1:last] {
		before, after, found := strings.Cut(rest, part)
		if !found {
			return nil, false
		}
		filled, rest = append(filled, before), after
	}
	rest, ok = strings.CutSuffix(rest, w.parts[last])
	return append(filled, rest), ok
}

// Letters is how many letters a text has.
func Letters(s string) (n int) {
	for _, r := range s {
		if unicode.IsLetter(r) {
			n++
		}
	}
	return n
}
