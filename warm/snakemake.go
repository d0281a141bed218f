package warm

import (
	"regexp"
	"strings"
)

// What of Snakemake's language is looked at: rules' directives and the
// workflow's own. Singularity is the older word for container.
var (
	smkContainer = regexp.MustCompile(`(?m)^[ \t]*(?:container|containerized|singularity)[ \t]*:[ \t\n]*`)
	smkInclude   = regexp.MustCompile(`(?m)^[ \t]*include[ \t]*:[ \t\n]*`)
	smkString    = regexp.MustCompile(`^[rRuU]?(?:"([^"\n\\]*)"|'([^'\n\\]*)')[ \t]*(\n|$)[ \t\n]*(["'])?`)
)

// snakemake reads one file.
func (w *workflow) snakemake(s *source) {
	s.text = withoutPython(s.text)
	for _, m := range smkContainer.FindAllStringIndex(s.text, -1) {
		at := s.at(m[1])
		switch text, ok := pythonString(s.text[m[1]:]); {
		case !ok:
			w.unclear(at, strings.TrimSpace(firstLine(s.text[m[0]:])))
		case !strings.HasPrefix(text, "docker://"):
			w.unclear(at, text+" (no image in a registry)")
		default:
			w.found = append(w.found, found{at, text})
		}
	}
	for _, m := range smkInclude.FindAllStringIndex(s.text, -1) {
		if text, ok := pythonString(s.text[m[1]:]); ok {
			w.include(s, s.at(m[1]), text, w.snakemake)
		} else {
			w.unclear(s.at(m[1]), strings.TrimSpace(firstLine(s.text[m[0]:])))
		}
	}
}

// pythonString reads one plain string that is all of an expression.
func pythonString(s string) (string, bool) {
	m := smkString.FindStringSubmatch(s)
	if m == nil || m[4] != "" {
		return "", false
	}
	return m[1] + m[2], true
}

// withoutPython blanks comments and what stands between triple quotes.
func withoutPython(s string) string {
	b := []byte(s)
	for i := 0; i < len(s); {
		mark := ""
		switch {
		case s[i] == '#':
			mark = "\n"
		case strings.HasPrefix(s[i:], `"""`), strings.HasPrefix(s[i:], `'''`):
			mark = s[i : i+3]
		case s[i] == '"' || s[i] == '\'':
			j := strings.IndexAny(s[i+1:], s[i:i+1]+"\n")
			if j < 0 {
				return string(b)
			}
			i += j + 2
			continue
		default:
			i++
			continue
		}
		j := len(s)
		if n := strings.Index(s[min(i+len(mark), len(s)):], mark); n >= 0 {
			j = i + n + 2*len(mark)
		}
		if mark == "\n" {
			j = i + strings.IndexByte(s[i:]+"\n", '\n')
		}
		blank(b, i, j)
		i = j
	}
	return string(b)
}
