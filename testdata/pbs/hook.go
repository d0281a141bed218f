package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// A launch is what execjob_launch may change of a task.
type launch struct {
	Progname string
	Argv     []string
	Env      []string
}

// An outcome is what a hook decided.
type outcome struct {
	rejected  bool
	message   string
	resources map[string]string
}

var runs atomic.Int64

// hooksFor are the hooks for an event, by name.
func (d *database) hooksFor(event string) (names []string) {
	for name, h := range d.Hooks {
		if h.Enabled == "True" && slices.Contains(strings.Split(h.Event, ","), event) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// run runs the hooks for an event, as root. What they print is for out.
func run(event string, j *job, l *launch, out io.Writer) (outcome, error) {
	d, err := readDatabase()
	if err != nil {
		return outcome{}, err
	}
	for _, name := range d.hooksFor(event) {
		o, err := d.run(name, event, j, l, out)
		if err != nil || o.rejected {
			return o, err
		}
		for resource, value := range o.resources {
			j.Resources[resource] = value
		}
	}
	return outcome{}, nil
}

func (d *database) run(name, event string, j *job, l *launch, out io.Writer) (outcome, error) {
	dir := filepath.Join(home, "hooks", fmt.Sprintf("%s.%d.%d", event, os.Getpid(), runs.Add(1)))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return outcome{}, err
	}
	defer os.RemoveAll(dir)
	file := func(n string) string { return filepath.Join(dir, n) }
	submission := strings.HasSuffix(event, "job")
	input := d.lines(event, j, l)
	if submission {
		input = submissionText(event, j)
	}
	if err := os.WriteFile(file("in"), []byte(input), 0o600); err != nil {
		return outcome{}, err
	}
	if err := os.WriteFile(file("resources"), []byte(strings.Join(d.defined(submission), "\n")), 0o600); err != nil {
		return outcome{}, err
	}
	args := []string{
		filepath.Join(execDir, "python/run_hook.py"), "--hook", "-i", file("in"), "-o", file("out"),
		"-L", filepath.Join(home, "hooks.log"), "-e", "4095", "-r", file("resources"),
	}
	if _, err := os.Stat(d.config(name)); err == nil {
		args = append(args, "-c", d.config(name))
	}
	if err := d.python(append(args, d.script(name)), file("in"), out); err != nil {
		return outcome{}, err
	}
	return readOutcome(file("out"), l)
}

// python runs the interpreter. When it ends, or after PBS's alarm, the rest of
// its process group is killed.
func (d *database) python(args []string, input string, out io.Writer) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/usr/bin/python3", args...)
	cmd.Dir, cmd.Env = filepath.Dir(input), []string{"PATH=/bin:/usr/bin", "PYTHONDONTWRITEBYTECODE=1"}
	// A pipe, so that what the hook leaves behind can hold nothing of the job's.
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = out, out, 10*time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	err := cmd.Wait()
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	return err
}

// defined are the resources that a hook knows: on a node, those with flag m.
func (d *database) defined(submission bool) []string {
	names := []string{"ncpus", "select"}
	for name, r := range d.Resources {
		if submission || strings.Contains(r["flag"], "m") {
			names = append(names, name)
		}
	}
	return names
}

func submissionText(event string, j *job) string {
	variables := map[string]string{}
	for name, value := range j.Variables {
		variables[name] = escape(value)
	}
	data, err := json.Marshal(map[string]any{
		"event": event, "resources": j.Resources, "variables": variables,
		"attributes": map[string]string{"Submit_arguments": j.Arguments, "Job_Owner": j.User + "@ctl"},
	})
	if err != nil {
		panic(err) // strings only
	}
	return string(data)
}

// escape is what PBS does to values of variables.
func escape(value string) string {
	return strings.NewReplacer(`\`, `\\`, `,`, `\,`, `"`, `\"`, `'`, `\'`).Replace(value)
}

// lines is the input of a hook on a node, with everything as it is in it: what
// users give is not kept from beginning a line.
func (d *database) lines(event string, j *job, l *launch) string {
	var b strings.Builder
	line := func(name, value string) { fmt.Fprintf(&b, "pbs.event().%s=%s\n", name, value) }
	line("type", event)
	if l != nil {
		line("progname", l.Progname)
		for i, a := range l.Argv {
			line(fmt.Sprintf("argv[%d]", i), a)
		}
		line("env", `"""`+strings.Join(escaped(l.Env), ",")+`"""`)
	}
	if j == nil {
		return b.String()
	}
	line("job.id", j.ID)
	line("job.Job_Owner", j.User+"@ctl")
	defined := d.defined(false)
	for name, value := range j.Resources {
		if slices.Contains(defined, name) {
			line("job.Resource_List["+name+"]", value)
		}
	}
	var variables []string
	for name, value := range j.Variables {
		variables = append(variables, name+"="+value)
	}
	slices.Sort(variables)
	line("job.Variable_List", `"""`+strings.Join(escaped(variables), ",")+`"""`)
	line("job.queue", "workq")
	line("job.exec_host", strings.Join(j.Hosts, "/0+")+"/0")
	line("job.euser", j.User)
	line("job.egroup", j.User)
	return b.String()
}

func escaped(pairs []string) (all []string) {
	for _, p := range pairs {
		name, value, _ := strings.Cut(p, "=")
		// Quotes are left alone here: that is how a value ends its own line.
		all = append(all, name+"="+strings.NewReplacer(`\`, `\\`, `,`, `\,`).Replace(value))
	}
	return all
}

func readOutcome(path string, l *launch) (outcome, error) {
	f, err := os.Open(path)
	if err != nil {
		return outcome{}, err
	}
	defer f.Close()
	o := outcome{resources: map[string]string{}}
	var argv []string
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		name, value, _ := strings.Cut(strings.TrimPrefix(lines.Text(), "pbs.event()."), "=")
		switch resource, ok := strings.CutPrefix(name, "job.Resource_List["); {
		case ok:
			o.resources[strings.TrimSuffix(resource, "]")] = value
		case name == "result":
			o.rejected = value != "accept"
		case name == "message":
			o.message = value
		case name == "progname" && l != nil:
			l.Progname = value
		case strings.HasPrefix(name, "argv[") && value != "":
			argv = append(argv, value)
		}
	}
	if l != nil {
		l.Argv = argv
	}
	return o, lines.Err()
}
