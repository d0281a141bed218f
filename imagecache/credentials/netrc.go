package credentials

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// netrcFile is Enroot's .credentials: lines of
//
//	machine HOST login USER password PASSWORD
//
// Enroot lets a shell expand them. Nothing is executed here: an entry with
// $(COMMAND) is passed over with a warning. ${NAME} and $NAME are looked up
// where the user runs the command. $oauthtoken is the name that NVIDIA's
// registry wants, and stays.
type netrcFile struct{ path string }

func (n netrcFile) look(_ context.Context, k *Keychain, t Target) (Login, error) {
	entries, err := n.read(k)
	if err != nil {
		return Login{}, err
	}
	var problems []error
	for _, e := range entries {
		if Host(e.machine) != Host(t.Registry) {
			continue
		}
		login, err := n.login(k, e)
		switch {
		case err != nil:
			problems = append(problems, err)
		case !login.IsZero() && t.wants(login.name):
			return login, nil
		}
	}
	return Login{}, errors.Join(problems...)
}

func (n netrcFile) list(k *Keychain) ([]Entry, error) {
	entries, err := n.read(k)
	var all []Entry
	for _, e := range entries {
		all = append(all, Entry{Registry: Host(e.machine), User: e.login, Kind: "password", Source: n.path})
	}
	return all, err
}

func (n netrcFile) read(k *Keychain) ([]netrcEntry, error) {
	data, open, err := readFile(n.path)
	if err != nil {
		return nil, err
	}
	entries := parseNetrc(string(data))
	if open && len(entries) > 0 {
		k.warnOpen(n.path)
	}
	return entries, nil
}

func (n netrcFile) login(k *Keychain, e netrcEntry) (Login, error) {
	name, err := k.expand(e.login)
	if err != nil {
		return Login{}, n.problem(e, err)
	}
	password, err := k.expand(e.password.Reveal())
	if err != nil {
		return Login{}, n.problem(e, err)
	}
	return NewLogin(name, NewSecret(password), n.path), nil
}

func (n netrcFile) problem(e netrcEntry, err error) error {
	return problem(n.path, "store it by: berth login "+e.machine, fmt.Errorf("line %d: %w", e.line, err))
}

var (
	errCommand   = errors.New("$(COMMAND) is for Enroot; Berth runs nothing that stands in a file")
	errNoExpand  = errors.New("variables are looked up only in commands that you run yourself")
	variableForm = regexp.MustCompile(`\$(\{[A-Za-z_][A-Za-z0-9_]*\}|[A-Za-z_][A-Za-z0-9_]*)`)
)

// expand replaces $NAME and ${NAME}.
func (k *Keychain) expand(text string) (string, error) {
	if strings.Contains(text, "$(") || strings.Contains(text, "`") {
		return "", errCommand
	}
	var failed error
	text = variableForm.ReplaceAllStringFunc(text, func(form string) string {
		name := strings.Trim(form, "${}")
		if name == "oauthtoken" {
			return form
		}
		if k.Expand == nil {
			failed = errNoExpand
			return ""
		}
		value, ok := k.Expand(name)
		if !ok {
			failed = fmt.Errorf("$%s is not set", name)
		}
		return value
	})
	return text, failed
}

type netrcEntry struct {
	line           int
	machine, login string
	password       Secret
}

// parseNetrc reads entries, and passes over what it does not know. Entries for
// any host ("default") are among that: a login is for a host.
func parseNetrc(text string) []netrcEntry {
	var all []netrcEntry
	words := netrcWords(text)
	for i := 0; i < len(words); i++ {
		switch words[i].text {
		case "machine":
			all = append(all, netrcEntry{line: words[i].line})
		case "default":
			all = append(all, netrcEntry{})
		}
		if len(all) == 0 || i+1 == len(words) {
			continue
		}
		if all[len(all)-1].set(words[i].text, words[i+1].text) {
			i++
		}
	}
	return all
}

// set stores the word after name, and reports whether it belongs to it.
func (e *netrcEntry) set(name, word string) bool {
	switch name {
	case "machine":
		e.machine = word
	case "login":
		e.login = word
	case "password":
		e.password = NewSecret(word)
	default:
		return false
	}
	return true
}

type netrcWord struct {
	text string
	line int
}

// netrcWords splits text at white space. "…" and $(…) are one word each, and
// comments begin with # at the beginning of a word.
func netrcWords(text string) []netrcWord {
	var words []netrcWord
	number := 0
	for line := range strings.Lines(text) {
		number++
		for {
			line = strings.TrimLeft(line, " \t\r\n")
			if line == "" || line[0] == '#' {
				break
			}
			n := wordLength(line)
			words = append(words, netrcWord{unquote(line[:n]), number})
			line = line[n:]
		}
	}
	return words
}

// wordLength returns how many bytes of line are its first word.
func wordLength(line string) int {
	depth, quoted := 0, false
	for i := 0; i < len(line); i++ {
		switch c := line[i]; {
		case c == '\\' && quoted:
			i++
		case c == '"' && (i == 0 || quoted):
			quoted = !quoted
		case c == '(' && (depth > 0 || i > 0 && line[i-1] == '$'):
			depth++
		case c == ')' && depth > 0:
			depth--
		case depth == 0 && !quoted && strings.IndexByte(" \t\r\n", c) >= 0:
			return i
		}
	}
	return len(line)
}

func unquote(word string) string {
	inner, ok := strings.CutPrefix(strings.TrimRight(word, "\r\n"), `"`)
	if !ok {
		return word
	}
	inner = strings.TrimSuffix(inner, `"`)
	return strings.NewReplacer(`\"`, `"`, `\\`, `\`).Replace(inner)
}
