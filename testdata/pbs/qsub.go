package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// qsub [-I] [-V] [-N NAME] [-W block=true] [-o PATH] [-j oe] [-r y|n] [-J FROM-TO] [-S SHELL] [-l NAME=VALUE,…] [-v NAME=VALUE,…]
// [SCRIPT | -- COMMAND…] submits a job, waits for its end, prints its output
// and ends with its exit status.
func qsub(args []string) (int, error) {
	j := &job{
		Shell: "/bin/bash", Resources: map[string]string{}, Variables: map[string]string{}, Arguments: strings.Join(args, " "),
	}
	rest, err := j.options(args)
	if err != nil {
		return 2, err
	}
	if err := j.command(rest); err != nil {
		return 2, err
	}
	if j.Variables["PBS_O_WORKDIR"], err = os.Getwd(); err != nil {
		return 1, err
	}
	t, err := dial("unix", serverPath)
	if err != nil {
		return 1, err
	}
	defer t.Close()
	if err := t.send(message{Job: j}); err != nil {
		return 1, err
	}
	if j.Interactive {
		go typed(t)
	}
	end, err := t.answers(func(data []byte) { _, _ = os.Stdout.Write(data) })
	if err == nil && end.Error != "" {
		err = errors.New(end.Error)
	}
	return end.Code, err
}

// typed sends what is typed.
func typed(t *talk) {
	data, _ := io.ReadAll(os.Stdin)
	_ = t.send(message{Data: data})
}

func (j *job) options(args []string) (rest []string, err error) {
	for len(args) > 0 {
		flag := args[0]
		if flag == "--" || !strings.HasPrefix(flag, "-") {
			return args, nil
		}
		switch flag {
		case "-I":
			j.Interactive, args = true, args[1:]
			continue
		case "-V":
			for _, v := range os.Environ() {
				name, value, _ := strings.Cut(v, "=")
				j.Variables[name] = value
			}
			args = args[1:]
			continue
		}
		if len(args) < 2 {
			return nil, fmt.Errorf("option %s needs a value", flag)
		}
		switch flag {
		case "-J":
			_, err = fmt.Sscanf(args[1], "%d-%d", &j.From, &j.To)
		case "-S":
			j.Shell = args[1]
		case "-N", "-o", "-j", "-r": // a name, and where output goes: always to whoever waits
		case "-W":
			if args[1] != "block=true" {
				err = fmt.Errorf("unknown attribute %s", args[1])
			}
		case "-l":
			assign(j.Resources, args[1])
		case "-v":
			assign(j.Variables, args[1])
		default:
			err = fmt.Errorf("unknown option %s", flag)
		}
		if err != nil {
			return nil, err
		}
		args = args[2:]
	}
	return nil, nil
}

// assign reads NAME=VALUE,…: a comma within quotes, or after a backslash,
// belongs to the value.
func assign(into map[string]string, text string) {
	part, quote, escaped := "", rune(0), false
	add := func() {
		if name, value, ok := strings.Cut(part, "="); ok {
			into[name] = value
		}
		part = ""
	}
	for _, r := range text {
		switch {
		case escaped:
			part, escaped = part+string(r), false
		case r == '\\':
			escaped = true
		case quote != 0 && r == quote:
			quote = 0
		case quote == 0 && (r == '"' || r == '\''):
			quote = r
		case quote == 0 && r == ',':
			add()
		default:
			part += string(r)
		}
	}
	add()
}

// command takes a script, from a file or standard input, with its #PBS lines,
// or an executable.
func (j *job) command(rest []string) error {
	switch {
	case len(rest) > 1 && rest[0] == "--":
		j.Argv = rest[1:]
		if !filepath.IsAbs(j.Argv[0]) {
			return errors.New("the executable's path must be absolute")
		}
		return nil
	case j.Interactive:
		return nil
	}
	var data []byte
	var err error
	if len(rest) == 1 {
		data, err = os.ReadFile(rest[0])
	} else {
		data, err = io.ReadAll(os.Stdin)
	}
	j.Script = string(data)
	for line := range strings.Lines(j.Script) {
		if directive, ok := strings.CutPrefix(line, "#PBS "); ok {
			given := *j
			given.Resources, given.Variables = map[string]string{}, map[string]string{}
			if _, err := given.options(words(strings.TrimSpace(directive))); err != nil {
				return err
			}
			merge(j.Resources, given.Resources)
			merge(j.Variables, given.Variables)
		}
	}
	return err
}

// merge adds what is not there: the command line counts more than a directive.
func merge(into, from map[string]string) {
	for name, value := range from {
		if _, ok := into[name]; !ok {
			into[name] = value
		}
	}
}
