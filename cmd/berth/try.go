package main

import (
	"path"
	"regexp"
	"slices"
	"strings"
)

// wrappers start something else, so that their own help says nothing.
var wrappers = []string{"sh", "bash", "dash", "ash", "env", "tini", "dumb-init", "catatonit", "entrypoint.sh", "docker-entrypoint.sh", "run.sh"}

// programName is what may be the name of a program. Images name theirs.
var programName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._+-]*$`)

// try guesses a command that shows whether the image works: its entrypoint's
// help, the version of the program that it is named after, or what system it
// is. Nothing of it has been run.
func (m madeImage) try() string {
	run := []string{"berth", "run"}
	image := m.ref.WithDigest(m.image.Digest).String()
	if entry := m.image.Config.Entrypoint; len(entry) > 0 && !isWrapper(entry[0]) {
		return commandLine(append(run, "--entrypoint", image, "--help")...)
	}
	if program := m.program(); program != "" {
		return commandLine(append(run, image, program, "--version")...)
	}
	return commandLine(append(run, image, "cat", "/etc/os-release")...)
}

// program is what the image is for: BioContainers name it by a label, or are
// built from the Conda package of their name, which the tag shows; others name
// it as their command.
func (m madeImage) program() string {
	names := []string{strings.ToLower(m.image.Config.Labels["software"])}
	if strings.Contains(m.ref.Tag(), "--") && !strings.HasPrefix(path.Base(m.ref.Repository()), "mulled-") {
		names = append(names, path.Base(m.ref.Repository()))
	}
	if cmd := m.image.Config.Cmd; len(cmd) > 0 && !isWrapper(cmd[0]) {
		names = append(names, cmd[0])
	}
	for _, name := range names {
		if name = path.Base(name); programName.MatchString(name) {
			return name
		}
	}
	return ""
}

func isWrapper(program string) bool { return slices.Contains(wrappers, path.Base(program)) }

var plainWord = regexp.MustCompile(`^[A-Za-z0-9_./:@%+=,#-]+$`)

// commandLine is what a shell reads as these words.
func commandLine(words ...string) string {
	quoted := make([]string, len(words))
	for i, word := range words {
		if quoted[i] = word; !plainWord.MatchString(word) || strings.HasPrefix(word, "#") {
			quoted[i] = "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
		}
	}
	return strings.Join(quoted, " ")
}
