package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/launcher"
)

// variables are what the user says of a command's environment: NAME=VALUE, or
// NAME alone to keep the host's value although the image sets it. Of several
// with the same name the last one counts.
type variables []string

// add takes one of --env, or a line of a file.
func (v *variables) add(text string) error {
	name, _, _ := strings.Cut(text, "=")
	switch {
	case name == "":
		return errors.New("the name is empty")
	case strings.ContainsAny(name, " \t\n\r,"):
		return fmt.Errorf("the name %q has a space or a comma", fault.Clean(name))
	case strings.Contains(text, "\x00"):
		return errors.New("it has a NUL byte")
	case len(text) > launcher.MaxVariable:
		return fmt.Errorf("it has %d bytes; Linux gives a program at most %d in one variable", len(text), launcher.MaxVariable)
	}
	*v = append(*v, text)
	return nil
}

// readVariables reads --env-file and then --env.
func readVariables(files, given []string) (variables, error) {
	var v variables
	for _, path := range files {
		if err := v.readFile(path); err != nil {
			return nil, fault.Wrap("read --env-file", path, fault.User,
				"each line is NAME=VALUE, taken as it is, or NAME to keep the host's value; lines that begin with # are comments", err)
		}
	}
	for _, text := range given {
		if err := v.add(text); err != nil {
			return nil, fault.Wrap("read --env", fault.Clean(text), fault.User, "write --env NAME=VALUE, or --env NAME to keep the host's value", err)
		}
	}
	return v, nil
}

func (v *variables) readFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return errors.Unwrap(err)
	}
	defer f.Close()
	return v.read(f)
}

// maxEnvLine bounds a line: Linux takes 128 KiB in one variable.
const maxEnvLine = 1 << 20

// read reads the format of docker's --env-file: no quotes, no expansion; a
// value is all that comes after the first "=".
func (v *variables) read(r io.Reader) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxEnvLine)
	number := 0
	for lines.Scan() {
		number++
		line := strings.TrimLeft(lines.Text(), " \t")
		if number == 1 {
			line = strings.TrimPrefix(line, "\ufeff") // of Windows' editors
		}
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if !utf8.ValidString(line) {
			return fmt.Errorf("line %d: it is no UTF-8 text", number)
		}
		if err := v.add(line); err != nil {
			return fmt.Errorf("line %d: %w", number, err)
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("line %d: %w", number+1, err)
	}
	return nil
}

// names are those that the image does not set.
func (v variables) names() []string {
	var names []string
	for _, text := range v {
		name, _, _ := strings.Cut(text, "=")
		names = append(names, name)
	}
	return names
}

// over returns the host's environment with what the user sets. PWD would be
// wrong in the container; shells find it out by themselves.
func (v variables) over(host []string) []string {
	last := map[string]string{"PWD": "", "OLDPWD": ""}
	for _, text := range v {
		if name, _, set := strings.Cut(text, "="); set {
			last[name] = text
		}
	}
	var environ []string
	for _, text := range host {
		name, _, _ := strings.Cut(text, "=")
		if _, replaced := last[name]; !replaced {
			environ = append(environ, text)
		}
	}
	for _, name := range sortedKeys(last) {
		if last[name] != "" {
			environ = append(environ, last[name])
		}
	}
	return environ
}
