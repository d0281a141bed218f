package warm

import (
	"regexp"
	"strings"
)

// What of Nextflow's language is looked at. A directive, or an assignment in a
// configuration: container 'x', container = "x", process.container = 'x',
// also within withName and withLabel.
var (
	nfContainer = regexp.MustCompile(`(?m)(?:^|[{;])[ \t]*(?:process\.)?container[ \t]*[=:]?[ \t\n]*`)
	nfInclude   = regexp.MustCompile(`(?m)\bincludeConfig[ \t]+\(?[ \t]*(['"])([^'"\n]*)['"]`)
	nfModule    = regexp.MustCompile(`(?m)^[ \t]*include[ \t]*\{[^}]*\}[ \t]*from[ \t]*(['"])([^'"\n]*)['"]`)
	nfRegistry  = regexp.MustCompile(`(?m)\bregistry[ \t]*=[ \t]*['"]([^'"$\n]+)['"]`)
	// nfEngine is nf-core's form: a file for Singularity, else an image. Berth
	// runs images.
	nfEngine = regexp.MustCompile(`^\$\{\s*workflow\.containerEngine\s*[^?]*\?\s*['"][^'"$]*['"]\s*:\s*['"]([^'"$]*)['"]\s*\}$`)
)

// nextflow reads one file.
func (w *workflow) nextflow(s *source) {
	s.text = withoutGroovy(s.text)
	if m := nfRegistry.FindStringSubmatch(s.text); m != nil && w.registry == "" {
		w.registry = m[1]
	}
	for _, m := range nfContainer.FindAllStringIndex(s.text, -1) {
		w.nextflowContainer(s, m[1], m[0])
	}
	for _, m := range nfInclude.FindAllStringSubmatchIndex(s.text, -1) {
		w.include(s, s.at(m[2]), s.text[m[4]:m[5]], w.nextflow)
	}
	for _, m := range nfModule.FindAllStringSubmatchIndex(s.text, -1) {
		name := s.text[m[4]:m[5]]
		switch {
		case !strings.HasPrefix(name, "."):
			continue // a plugin
		case !strings.HasSuffix(name, ".nf"):
			name += ".nf"
		}
		w.include(s, s.at(m[2]), name, w.nextflow)
	}
}

// nextflowContainer looks at what stands after the word container.
func (w *workflow) nextflowContainer(s *source, i, word int) {
	rest := s.text[i:]
	at := s.at(i)
	if rest == "" || s.text[i-1] == 'r' && !strings.ContainsRune(`'"{(`, rune(rest[0])) {
		return // containerOptions and the like
	}
	text, end, ok := groovyString(rest)
	after := strings.TrimLeft(rest[end:], " \t")
	switch m := nfEngine.FindStringSubmatch(text); {
	case !ok || after != "" && !strings.ContainsRune("\n\r;}", rune(after[0])):
		w.unclear(at, strings.TrimSpace(firstLine(s.text[word:])))
	case m != nil:
		w.found = append(w.found, found{at, m[1]})
	case strings.Contains(text, "$") && rest[0] == '"':
		w.unclear(at, text)
	default:
		w.found = append(w.found, found{at, text})
	}
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(strings.TrimLeft(s, "\n"), "\n")
	return line
}

// groovyString reads the string at the beginning of s; ${…} in it may hold
// strings of its own. end is behind it.
func groovyString(s string) (text string, end int, ok bool) {
	if s == "" || s[0] != '\'' && s[0] != '"' {
		return "", 0, false
	}
	depth := 0
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] == '\\':
			i++
		case s[0] == '"' && s[i] == '$' && i+1 < len(s) && s[i+1] == '{':
			depth++
			i++
		case depth > 0 && s[i] == '}':
			depth--
		case depth == 0 && s[i] == s[0]:
			return s[1:i], i + 1, true
		case depth == 0 && s[i] == '\n':
			return "", 0, false
		}
	}
	return "", 0, false
}

// withoutGroovy blanks comments, and what stands between triple quotes:
// scripts, which hold anything.
func withoutGroovy(s string) string {
	b := []byte(s)
	end := func(i int, mark string) int {
		if n := strings.Index(s[i:], mark); n >= 0 {
			return i + n + len(mark)
		}
		return len(s)
	}
	for i := 0; i < len(s); {
		switch {
		case strings.HasPrefix(s[i:], "//"):
			j := end(i, "\n")
			blank(b, i, j)
			i = j
		case strings.HasPrefix(s[i:], "/*"):
			j := end(i+2, "*/")
			blank(b, i, j)
			i = j
		case strings.HasPrefix(s[i:], `"""`), strings.HasPrefix(s[i:], `'''`):
			j := end(i+3, s[i:i+3])
			blank(b, i, j)
			i = j
		case s[i] == '\'' || s[i] == '"':
			_, n, ok := groovyString(s[i:])
			if !ok {
				n = 1
			}
			i += n
		default:
			i++
		}
	}
	return string(b)
}
