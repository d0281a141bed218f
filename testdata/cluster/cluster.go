// Package cluster starts a real Slurm cluster for a test: slurmctld, munged
// and some slurmd on this machine, each in namespaces of its own. The work is
// done by the script beside this file; its README.md says what a machine of
// the cluster looks like and which users there are.
//
// Everything here needs root and the distribution's Slurm packages. Up skips
// the test, with the reason, where one of them is missing.
package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// cannotRun is the script's exit code where no cluster can be started.
const cannotRun = 77

// Options say what kind of cluster to start. The zero value is three nodes
// with the script's own slurm.conf and no plugin.
type Options struct {
	Nodes        int      // compute nodes, named n1, n2, …; 0 means 3
	CPUs         int      // CPUs that each node claims to have; 0 means 8
	Plugstack    []string // lines of plugstack.conf, or files of such lines
	Conf         []string // lines of slurm.conf, KEY=VALUE
	Gres         []string // lines of gres.conf
	JobContainer bool     // a private /tmp per job: job_container/tmpfs
	Bare         bool     // the machines alone, without Slurm
	Root         []string // folders of a system, uppermost first, in place of the host's
	Install      []string // SRC or SRC:DST, read-only; DST/bin comes first in PATH
	Bind         []string // SRC:DST, writable, the same on all machines
	ReadOnlyBind []string // SRC:DST
	Files        []string // FILE:DST, copied once to every machine
}

// args are Options as the script takes them.
func (o Options) args() []string {
	var args []string
	add := func(flag string, values ...string) {
		for _, v := range values {
			args = append(args, flag, v)
		}
	}
	if o.Nodes > 0 {
		add("--nodes", strconv.Itoa(o.Nodes))
	}
	if o.CPUs > 0 {
		add("--cpus", strconv.Itoa(o.CPUs))
	}
	if o.JobContainer {
		args = append(args, "--job-container")
	}
	if o.Bare {
		args = append(args, "--bare")
	}
	if len(o.Root) > 0 {
		add("--root", strings.Join(o.Root, ":"))
	}
	add("--plugstack", o.Plugstack...)
	add("--conf", o.Conf...)
	add("--gres", o.Gres...)
	add("--install", o.Install...)
	add("--bind", o.Bind...)
	add("--ro-bind", o.ReadOnlyBind...)
	add("--etc", o.Files...)
	return args
}

// A Cluster is up from Up's return to the end of the test that called Up. Its
// methods may be called from several goroutines at once.
type Cluster struct {
	Dir    string // its folder on the host: home, shared, machines/NAME/root
	t      testing.TB
	script string
}

// With is the same cluster for a subtest: t is what its methods then fail.
func (c *Cluster) With(t testing.TB) *Cluster {
	return &Cluster{Dir: c.Dir, t: t, script: c.script}
}

// A Command is something to run on a machine of the cluster.
type Command struct {
	Machine string        // ctl, n1, n2, …
	User    string        // root, alice, bob, carol, berth; "" means root
	Args    []string      // the program, looked up in PATH there, and its arguments
	Env     []string      // NAME=VALUE, besides what a login sets
	Stdin   io.Reader     // nil means /dev/null
	Timeout time.Duration // whole seconds; 0 means two minutes
}

// A Result is what a command left. Code is its exit code: 124 after a time-out,
// -1 if the context ended first.
type Result struct {
	Stdout, Stderr string
	Code           int
}

// String shows all of r, for messages of failed tests.
func (r Result) String() string {
	return fmt.Sprintf("exit code %d\nstdout: %s\nstderr: %s", r.Code, r.Stdout, r.Stderr)
}

// Up starts a cluster and takes it down when the test ends, also if the test's
// process is killed. A test that failed gets the end of the daemons' logs.
func Up(t testing.TB, o Options) *Cluster {
	t.Helper()
	c := &Cluster{Dir: filepath.Join(t.TempDir(), "cluster"), t: t, script: findScript(t)}
	args := append([]string{"--owner", strconv.Itoa(os.Getpid())}, o.args()...)
	t.Cleanup(c.down)
	r := c.call(context.Background(), nil, "up", args...)
	switch r.Code {
	case 0:
	case cannotRun:
		t.Skipf("no cluster here: %s", strings.TrimSpace(r.Stderr))
	default:
		t.Fatalf("cluster up: %v", r)
	}
	return c
}

// findScript looks for this folder upwards from the working folder, which for
// a test is that of its package.
func findScript(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for ; dir != "/"; dir = filepath.Dir(dir) {
		script := filepath.Join(dir, "testdata", "cluster", "cluster")
		if info, err := os.Stat(script); err == nil && info.Mode().IsRegular() {
			return script
		}
	}
	t.Fatal("testdata/cluster/cluster is in no folder above this test's")
	return ""
}

func (c *Cluster) down() {
	if c.t.Failed() {
		c.t.Logf("from the cluster's logs:\n%s", telling(c.Logs()))
	}
	if r := c.call(context.Background(), nil, "down"); r.Code != 0 {
		c.t.Errorf("cluster down: %v", r)
	}
}

// telling returns what of the logs may say why a test failed: the last lines
// that speak of trouble, and of each file the end.
func telling(logs string) string {
	const troubles, ends = 40, 6
	trouble := regexp.MustCompile(`(?i)error|fatal|fail|drain|not respond|timed? ?out|berth: `)
	var file string
	var bad, end, all []string
	flush := func() {
		if file != "" {
			all = append(append(all, file), end...)
		}
		end = nil
	}
	for line := range strings.Lines(logs) {
		if strings.HasPrefix(line, "== ") {
			flush()
			file = line
			continue
		}
		end = last(append(end, line), ends)
		if trouble.MatchString(line) {
			bad = last(append(bad, line), troubles)
		}
	}
	flush()
	return strings.Join(append(append(bad, "the end of each file:\n"), all...), "")
}

// last returns the last n of lines.
func last(lines []string, n int) []string { return lines[max(0, len(lines)-n):] }

// call runs one command of the script. The script bounds its own time; the
// limit here is for its errors.
func (c *Cluster) call(ctx context.Context, stdin io.Reader, command string, args ...string) Result {
	c.t.Helper()
	cmd := exec.CommandContext(ctx, c.script, append([]string{command, "--dir", c.Dir}, args...)...)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &stdout, &stderr
	cmd.WaitDelay = 10 * time.Second
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) && ctx.Err() == nil {
		c.t.Errorf("cluster %s: %v", command, err)
	}
	code := -1
	if cmd.ProcessState != nil {
		code = cmd.ProcessState.ExitCode()
	}
	return Result{Stdout: stdout.String(), Stderr: stderr.String(), Code: code}
}

// Do runs a command and waits for it. If ctx ends, the command is sent
// SIGTERM, and killed if it still runs 5 seconds later.
func (c *Cluster) Do(ctx context.Context, cmd Command) Result {
	c.t.Helper()
	args := []string{cmd.Machine}
	if cmd.Timeout > 0 {
		args = append(args, "--timeout", strconv.Itoa(int(cmd.Timeout.Seconds())))
	}
	return c.call(ctx, cmd.Stdin, "run", append(args, cmd.script()...)...)
}

// script is the part of the script's command line that run and spawn share.
func (cmd Command) script() []string {
	var args []string
	if cmd.User != "" {
		args = append(args, "-u", cmd.User)
	}
	for _, e := range cmd.Env {
		args = append(args, "-e", e)
	}
	return append(append(args, "--"), cmd.Args...)
}

// Run is Do with a machine, a user and a command line. It is killed after two
// minutes.
func (c *Cluster) Run(ctx context.Context, machine, user string, args ...string) Result {
	c.t.Helper()
	return c.Do(ctx, Command{Machine: machine, User: user, Args: args})
}

// MustRun is Run for a command that has to succeed: it ends the test if the
// exit code is not 0. It returns standard output.
func (c *Cluster) MustRun(ctx context.Context, machine, user string, args ...string) string {
	c.t.Helper()
	r := c.Run(ctx, machine, user, args...)
	if r.Code != 0 {
		c.t.Fatalf("%s@%s: %q: %v", user, machine, args, r)
	}
	return r.Stdout
}

// Spawn starts a command in the background, to run until Stop or the end of
// the test. Timeout and Stdin are not used. Its output is part of Logs.
func (c *Cluster) Spawn(name string, cmd Command) {
	c.t.Helper()
	if r := c.call(context.Background(), nil, "spawn", append([]string{cmd.Machine, name}, cmd.script()...)...); r.Code != 0 {
		c.t.Fatalf("cluster spawn %s: %v", name, r)
	}
}

// Stop ends what Spawn started: SIGTERM, and SIGKILL 5 seconds later.
func (c *Cluster) Stop(name string) {
	c.t.Helper()
	if r := c.call(context.Background(), nil, "stop", name); r.Code != 0 {
		c.t.Errorf("cluster stop %s: %v", name, r)
	}
}

// WaitIdle waits, at most three minutes, until no job is left and all nodes are
// idle; a drained node ends the test.
func (c *Cluster) WaitIdle() {
	c.t.Helper()
	if r := c.call(context.Background(), nil, "wait-idle"); r.Code != 0 {
		c.t.Fatalf("cluster wait-idle: %v", r)
	}
}

// NodeState is what sinfo says of a node: idle, mixed, draining, …, and after
// a space the reason, where there is one. It asks for all nodes: asked for one,
// sinfo of Slurm 22.05 calls a half-used node allocated.
func (c *Cluster) NodeState(node string) string {
	c.t.Helper()
	out := c.MustRun(context.Background(), "ctl", "root", "sinfo", "-h", "-N", "-o", "%N %T %E")
	for line := range strings.Lines(out) {
		if state, ok := strings.CutPrefix(line, node+" "); ok {
			return strings.TrimSuffix(strings.TrimSpace(state), " none")
		}
	}
	c.t.Fatalf("no node %s in %q", node, out)
	return ""
}

// Logs returns the logs of all daemons and of what Spawn started.
func (c *Cluster) Logs() string {
	c.t.Helper()
	return c.call(context.Background(), nil, "logs").Stdout
}
