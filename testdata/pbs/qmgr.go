package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// A hook is what qmgr knows of one.
type hook struct{ Event, Enabled, Alarm, FailAction string }

// A database is what qmgr changes.
type database struct {
	Hooks     map[string]*hook
	Resources map[string]map[string]string // type, flag
}

// databasePath is a variable's value where there is no cluster.
func databaseDir() string {
	if dir := os.Getenv("PBS_SERVER_HOME"); dir != "" {
		return dir
	}
	return serverHome
}

func readDatabase() (*database, error) {
	d := &database{Hooks: map[string]*hook{}, Resources: map[string]map[string]string{}}
	data, err := os.ReadFile(filepath.Join(databaseDir(), "database"))
	if errors.Is(err, fs.ErrNotExist) {
		return d, nil
	}
	if err == nil {
		err = json.Unmarshal(data, d)
	}
	return d, err
}

func (d *database) write() error {
	data, err := json.MarshalIndent(d, "", " ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(databaseDir(), 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(databaseDir(), "database"), data, 0o600)
}

// script and config are the files of a hook.
func (d *database) script(name string) string { return filepath.Join(databaseDir(), name+".PY") }
func (d *database) config(name string) string { return filepath.Join(databaseDir(), name+".CF") }

// qmgr -c COMMAND, or commands on standard input, a line each; it goes on after
// one that failed, as PBS's does, and ends with 1.
func qmgr(args []string) (int, error) {
	if os.Getuid() != 0 {
		return 1, errors.New("qmgr: Unauthorized Request")
	}
	commands := []string{}
	if len(args) == 2 && args[0] == "-c" {
		commands = append(commands, args[1])
	} else {
		for in := bufio.NewScanner(os.Stdin); in.Scan(); {
			commands = append(commands, in.Text())
		}
	}
	d, err := readDatabase()
	if err != nil {
		return 1, err
	}
	code := 0
	for _, c := range commands {
		if err := d.do(words(c)); err != nil {
			fmt.Fprintf(os.Stderr, "qmgr obj= svr=default: %v\n", err)
			code = 1
		}
	}
	return code, d.write()
}

func (d *database) do(w []string) error {
	if len(w) == 0 || strings.HasPrefix(w[0], "#") {
		return nil
	}
	if len(w) < 3 {
		return fmt.Errorf("syntax error: %q", w)
	}
	switch verb, object, name := w[0], w[1], w[2]; {
	case object == "resource":
		return d.resource(verb, name, w[3:])
	case object == "hook":
		return d.hook(verb, name, w[3:])
	}
	return fmt.Errorf("syntax error: %q", w)
}

func (d *database) resource(verb, name string, rest []string) error {
	_, exists := d.Resources[name]
	switch {
	case verb == "list" && exists:
		fmt.Printf("Resource %s\n    type = %s\n    flag = %s\n", name, d.Resources[name]["type"], d.Resources[name]["flag"])
		return nil
	case verb == "create" && exists:
		return fmt.Errorf("resource already exists: %s", name)
	case verb != "create" && !exists:
		return fmt.Errorf("unknown resource %s", name)
	case verb == "delete":
		delete(d.Resources, name)
		return nil
	}
	values := map[string]string{}
	for part := range strings.SplitSeq(strings.Join(rest, ""), ",") {
		key, value, _ := strings.Cut(part, "=")
		values[key] = value
	}
	d.Resources[name] = values
	return nil
}

func (d *database) hook(verb, name string, rest []string) error {
	h := d.Hooks[name]
	switch {
	case verb == "create" && h != nil:
		return fmt.Errorf("hook error: hook name already registered: %s", name)
	case verb != "create" && h == nil:
		return fmt.Errorf("hook error: %s: hook not found", name)
	case verb == "create":
		d.Hooks[name] = &hook{Enabled: "True", Alarm: "30", FailAction: "none"}
		return nil
	case verb == "delete":
		delete(d.Hooks, name)
		return errors.Join(remove(d.script(name)), remove(d.config(name)))
	case verb == "list":
		fmt.Printf("Hook %s\n    event = %s\n", name, h.Event)
		return nil
	case verb == "set":
		return h.set(strings.SplitN(strings.Join(rest, " "), "=", 2))
	case verb == "import" && len(rest) == 3 && rest[1] == "default":
		return d.load(name, rest[0], rest[2])
	}
	return fmt.Errorf("syntax error: %s %q", verb, rest)
}

func (h *hook) set(pair []string) error {
	if len(pair) != 2 {
		return errors.New("syntax error: no value")
	}
	key, value := strings.TrimSpace(pair[0]), strings.TrimSpace(pair[1])
	fields := map[string]*string{"event": &h.Event, "enabled": &h.Enabled, "alarm": &h.Alarm, "fail_action": &h.FailAction}
	if fields[key] == nil {
		return fmt.Errorf("hook error: unknown attribute %s", key)
	}
	if key == "event" {
		for e := range strings.SplitSeq(value, ",") {
			if !slices.Contains(events, e) {
				return fmt.Errorf("hook error: invalid argument (%s) to event", e)
			}
		}
	}
	*fields[key] = value
	return nil
}

var events = []string{
	"queuejob", "modifyjob", "execjob_begin", "execjob_prologue", "execjob_launch", "execjob_epilogue",
	"execjob_end", "execjob_abort", "exechost_startup",
}

func (d *database) load(name, kind, path string) error {
	into := map[string]string{"application/x-python": d.script(name), "application/x-config": d.config(name)}[kind]
	data, err := os.ReadFile(path)
	if err != nil || into == "" {
		return fmt.Errorf("hook error: import of %s as %s: %w", path, kind, err)
	}
	return os.WriteFile(into, data, 0o600)
}

func remove(path string) error {
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// words splits a line at blanks, but for what is quoted.
func words(line string) []string {
	var all []string
	word, quote, in := "", rune(0), false
	for _, r := range line {
		switch {
		case quote != 0 && r == quote:
			quote = 0
		case quote == 0 && (r == '"' || r == '\''):
			quote, in = r, true
		case quote == 0 && (r == ' ' || r == '\t'):
			if in {
				all = append(all, word)
			}
			word, in = "", false
		default:
			word, in = word+string(r), true
		}
	}
	if in {
		all = append(all, word)
	}
	return all
}
