package imagefile

import (
	"slices"
	"strings"
)

// What enroot keeps of an image's config (enroot 4.1, src/docker.sh): the
// variables as they are, one a line; and a script that is the entry point,
// with the labels as comments in front.
const (
	enrootEnvironment = "etc/environment"
	enrootScript      = "etc/rc"
)

func enrootConfig(read ReadFile) Config {
	var c Config
	if text, err := read(enrootEnvironment); err == nil {
		c.Env = environment(string(text))
	}
	if text, err := read(enrootScript); err == nil {
		c.readRC(string(text))
	}
	return c
}

// environment reads /etc/environment. Distributions have one, too, in which
// values may stand in quotes (pam_env).
func environment(text string) []string {
	var env []string
	for line := range strings.Lines(text) {
		name, value, ok := strings.Cut(strings.TrimRight(line, "\r\n"), "=")
		if name = strings.TrimPrefix(strings.TrimSpace(name), "export "); ok && validName(name) {
			env = setVariable(env, name, unquote(value))
		}
	}
	return env
}

// unquote takes one pair of quotes off a value.
func unquote(s string) string {
	if n := len(s); n >= 2 && (s[0] == '"' || s[0] == '\'') && s[n-1] == s[0] {
		return s[1 : n-1]
	}
	return s
}

// readRC reads enroot's script. One that a user has changed is run as it is.
func (c *Config) readRC(text string) {
	var execs []string
	written := false // by enroot
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, "# ") && !written:
			c.addLabel(line[2:])
		case strings.HasPrefix(line, `cd "`) && strings.Contains(line, `" && unset OLDPWD`):
			written = true
			c.WorkingDir, _, _ = strings.Cut(line[len(`cd "`):], `" && unset OLDPWD`)
		case strings.HasPrefix(line, "exec "):
			execs = append(execs, strings.TrimSpace(line[len("exec "):]))
		}
	}
	if !written {
		*c = Config{Env: c.Env} // somebody else's /etc/rc
		return
	}
	if !c.readExecs(execs) {
		c.Entrypoint = []string{"/bin/sh", "/" + enrootScript}
	}
}

func (c *Config) addLabel(line string) {
	name, value, ok := strings.Cut(line, " ")
	if !ok || name == "" {
		return
	}
	if c.Labels == nil {
		c.Labels = map[string]string{}
	}
	c.Labels[name] = value
}

// readExecs takes entry point and command from the two lines that enroot
// writes: exec ENTRYPOINT "$@", and exec ENTRYPOINT CMD.
func (c *Config) readExecs(execs []string) bool {
	if len(execs) != 2 {
		return false
	}
	entrypoint, ok := strings.CutSuffix(execs[0], `"$@"`)
	first, good := words(entrypoint)
	all, fine := words(execs[1])
	if !ok || !good || !fine || len(all) < len(first) || !slices.Equal(all[:len(first)], first) {
		return false
	}
	c.Entrypoint, c.Cmd = first, all[len(first):]
	return true
}

// words reads words in single quotes, as bash's @Q writes them. It knows no
// more of the shell than that.
func words(s string) ([]string, bool) {
	var all []string
	for s = strings.TrimSpace(s); s != ""; s = strings.TrimLeft(s, " ") {
		var word strings.Builder
		for s != "" && s[0] != ' ' {
			switch {
			case strings.HasPrefix(s, `\'`):
				word.WriteByte('\'')
				s = s[2:]
			case s[0] == '\'':
				part, rest, ok := strings.Cut(s[1:], "'")
				if !ok {
					return nil, false
				}
				word.WriteString(part)
				s = rest
			default:
				return nil, false
			}
		}
		all = append(all, word.String())
	}
	return all, true
}
