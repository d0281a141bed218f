package docs

import (
	"fmt"
	"regexp"
	"strings"
)

// A Command is what a reader types after a prompt, and what they then see.
type Command struct {
	Line   int
	Root   bool   // the prompt is #, not $
	Text   string // lines that end in a backslash go on in the next
	Output string // as shown; empty where the document shows nothing
}

func parseCommands(block string, line int) (all []Command, err error) {
	more := false
	for text := range strings.Lines(block) {
		text = strings.TrimSuffix(text, "\n")
		user, isUser := strings.CutPrefix(text, "$ ")
		root, isRoot := strings.CutPrefix(text, "# ")
		switch {
		case more:
			all[len(all)-1].Text += "\n" + text
		case isUser:
			all = append(all, Command{Line: line, Text: user})
		case isRoot:
			all = append(all, Command{Line: line, Root: true, Text: root})
		case len(all) == 0:
			return nil, fmt.Errorf("line %d: %q stands before the first prompt", line, text)
		default:
			all[len(all)-1].Output += text + "\n"
		}
		if more || isUser || isRoot {
			more = strings.HasSuffix(text, `\`)
		}
		line++
	}
	return all, nil
}

// file is the file that a command "cat FILE" shows, or empty.
func (c Command) file() string {
	m := regexp.MustCompile(`^cat ([^ |<>]+)$`).FindStringSubmatch(c.Text)
	if m == nil || c.Output == "" {
		return ""
	}
	return m[1]
}

// matches says whether a command printed what the document shows: the same
// lines, where … stands for anything within a line, and alone on a line for any
// lines. How many blanks are between words does not matter.
func matches(shown, printed string) bool {
	if shown == "" {
		return true
	}
	var re strings.Builder
	re.WriteString("^")
	for line := range strings.Lines(shown) {
		if line = strings.TrimRight(line, " \n"); line == "…" {
			re.WriteString(`(?:[^\n]*\n)*?`)
			continue
		}
		words := regexp.MustCompile(`[ \t]+`).Split(line, -1)
		for i, w := range words {
			words[i] = strings.ReplaceAll(regexp.QuoteMeta(w), "…", `[^\n]*`)
		}
		re.WriteString(strings.Join(words, `[ \t]+`) + `[ \t\r]*\n`)
	}
	if printed != "" && !strings.HasSuffix(printed, "\n") {
		printed += "\n"
	}
	return regexp.MustCompile(re.String() + "$").MatchString(printed)
}
