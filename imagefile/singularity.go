package imagefile

import (
	"encoding/json"
	"strings"
)

// What Apptainer and Singularity keep in an image: scripts that set the
// environment, one that is run when no command is given, and labels.
const (
	singularityRunscript = ".singularity.d/runscript"
	singularityLabels    = ".singularity.d/labels.json"
)

// singularityEnvironment are the scripts that hold an image's own variables,
// in the order in which they are sourced: those of the Docker image that it
// was made from, and the %environment section of a definition file. The others
// are the same in every image.
var singularityEnvironment = []string{
	".singularity.d/env/10-docker2singularity.sh", ".singularity.d/env/10-docker.sh", ".singularity.d/env/90-environment.sh",
}

func singularityConfig(read ReadFile, runscript []byte) Config {
	var c Config
	for _, name := range singularityEnvironment {
		if text, err := read(name); err == nil {
			c.addExports(string(text))
		}
	}
	if raw, err := read(singularityLabels); err == nil {
		_ = json.Unmarshal(raw, &c.Labels) // labels are for people
	}
	if strings.TrimSpace(string(runscript)) != "" {
		c.Entrypoint = []string{"/" + singularityRunscript}
	}
	return c
}

// addExports reads the lines NAME=VALUE of a script that stand for themselves:
// not within a condition or a function, which are indented, and without
// substitutions. There is no shell to run the others.
func (c *Config) addExports(text string) {
	for line := range strings.Lines(text) {
		line, ok := strings.CutPrefix(strings.TrimRight(line, "\r\n\t ;"), "export ")
		if !ok {
			continue
		}
		name, value, ok := strings.Cut(line, "=")
		if !ok || !validName(name) {
			continue
		}
		// "${NAME:-"VALUE"}" lets the host's value stand.
		if rest, found := strings.CutPrefix(value, `"${`+name+`:-`); found {
			value = strings.TrimSuffix(rest, `}"`)
		}
		if value, ok = literal(value); ok {
			c.Env = setVariable(c.Env, name, value)
		}
	}
}

// literal reads one word of a shell that nothing is substituted in.
func literal(s string) (string, bool) {
	if len(s) >= 2 && s[0] == '\'' && s[len(s)-1] == '\'' {
		s = s[1 : len(s)-1]
		return s, !strings.Contains(s, "'")
	}
	quoted := len(s) >= 2 && s[0] == '"' && s[len(s)-1] == '"'
	if quoted {
		s = s[1 : len(s)-1]
	}
	special := "$`\""
	if !quoted {
		special = "$`\"' \t;&|<>()*?[]{}~#"
	}
	var out strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '\\' && i+1 < len(s):
			i++
			if quoted && !strings.ContainsRune("$`\"\\", rune(s[i])) {
				out.WriteByte('\\')
			}
		case strings.IndexByte(special, s[i]) >= 0:
			return "", false
		}
		out.WriteByte(s[i])
	}
	return out.String(), true
}
