package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode"

	"github.com/alecthomas/kong"
	"github.com/berth-hpc/berth/fault"
)

// report tells the user about err, in two lines at most, and returns the exit
// status. This is the only place that decides on either.
func report(stderr io.Writer, err error) int {
	var sig interrupted
	var status ended
	switch {
	case err == nil || errors.Is(err, errHelp):
		return 0
	case errors.As(err, &status):
		return int(status)
	case errors.As(err, &sig):
		fmt.Fprintf(stderr, "berth: %v\n", sig)
		return 128 + int(sig.Signal)
	}
	fmt.Fprintf(stderr, "berth: error: %s\n", printable(err.Error()))
	if remedy := remedyFor(err); remedy != "" {
		fmt.Fprintf(stderr, "berth:   %s\n", printable(remedy))
	}
	if n, ok := errors.AsType[notStarted](err); ok {
		return n.ExitStatus()
	}
	return fault.Of(err).ExitStatus()
}

func remedyFor(err error) string {
	if remedy := fault.Remedy(err); remedy != "" || fault.Of(err) != fault.Bug {
		return remedy
	}
	return "this is a bug in Berth; please report it, with the output of: berth version"
}

// usageError makes kong's complaint about a command line the user's fault.
func usageError(err error) error {
	parse, ok := errors.AsType[*kong.ParseError](err)
	if !ok || errors.Is(err, errHelp) {
		return err
	}
	return &fault.Error{
		Op: "read the command line", Blame: fault.User, Err: parse.Unwrap(),
		Remedy: "usage: " + usage(parse.Context),
	}
}

// usage is the shortest line that shows how the command is written.
func usage(line *kong.Context) string {
	if node := line.Selected(); node != nil {
		return "berth " + node.Summary() + " (more: berth " + node.Path() + " --help)"
	}
	return "berth COMMAND (more: berth --help)"
}

// printable keeps what users and registries say from moving the terminal's
// cursor or faking lines of ours.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case !unicode.IsPrint(r):
			return unicode.ReplacementChar
		}
		return r
	}, strings.TrimSpace(s))
}
