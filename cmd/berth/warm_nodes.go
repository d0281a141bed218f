package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/warm"
)

// warmElsewhere has other nodes warmed, by a job of one CPU on each: it starts
// as soon as that node has room, whatever the others do.
type warmElsewhere struct {
	Partition string        `short:"p" placeholder:"NAME" help:"Warm the nodes of this partition, by a job on each (Slurm; root)."`
	Nodes     string        `short:"w" placeholder:"NODES" help:"Warm these nodes, as in n[1-3] (Slurm), or n1,n2 (PBS)."`
	Scheduler string        `enum:"auto,slurm,pbs" default:"auto" help:"Whose jobs (${enum})."`
	Wait      time.Duration `default:"1h" help:"Follow the jobs for so long; what has not begun by then is cancelled."`
	TimeLimit time.Duration `default:"1h" help:"The jobs' time limit."`
	Memory    string        `default:"2G" placeholder:"SIZE" help:"The jobs' memory, in the scheduler's words."`
	JobOption []string      `placeholder:"OPTION" sep:"none" help:"An option more for sbatch or qsub, as in --job-option=--qos=admin."`

	Report bool `hidden:"" help:"Tell Slurm how this goes: such a job's own."`
	Start  int  `hidden:"" help:"Begin with this image of the list: not all nodes with the same."`
}

func (e *warmElsewhere) elsewhere() bool { return e.Partition != "" || e.Nodes != "" }

// States of a node.
const (
	nodeReady   = "ready"   // has all images
	nodePartial = "partial" // some
	nodeFailed  = "failed"  // its job did
	nodeSkipped = "skipped" // takes no jobs
	nodeBusy    = "busy"    // had no room for the job until --wait was over
	nodeWaiting = "waiting" // the job has not begun
	nodeRunning = "running"
)

// A warmedNode is what became of one node.
type warmedNode struct {
	Node   string      `json:"node"`
	State  string      `json:"state"`
	Job    string      `json:"job,omitempty"`
	Reason string      `json:"reason,omitempty"`
	Report *nodeReport `json:"report,omitempty"`

	partition string
}

// ended says that nothing more will come.
func (n warmedNode) ended() bool { return n.State != nodeWaiting && n.State != nodeRunning }

// String is the node's line.
func (n warmedNode) String() string {
	text := fmt.Sprintf("%-9s node %s", n.State, n.Node)
	if r := n.Report; r != nil {
		text += fmt.Sprintf(": %d of %d images, %d pulled, %s", r.Ready, r.Of, r.Pulled, megabytes(r.Bytes))
		if r.Now != "" {
			text += ", now " + printable(r.Now)
		}
		for _, f := range r.Failed {
			text += "; " + printable(f)
		}
	}
	if n.Reason != "" {
		text += ": " + printable(n.Reason)
	}
	return text
}

// A scheduler runs a script as root on one node after the other's word.
type scheduler interface {
	// nodes lists what --partition and --nodes mean; those that take no jobs
	// are skipped, with the reason.
	nodes(ctx context.Context, e *warmElsewhere) ([]warmedNode, error)
	// run submits a job for each node that is not skipped, and calls changed
	// as they go, until all have ended or ctx has; then it cancels what has not
	// begun.
	run(ctx context.Context, e *warmElsewhere, nodes []warmedNode, script func(i int) string, changed func()) error
}

// onNodes has the entries warmed on other nodes.
func (c *warmCmd) onNodes(ctx context.Context, s *session, entries []warm.Entry, result *warmResult) error {
	if s.user.uid != 0 {
		return &fault.Error{
			Op: "warm other nodes", Blame: fault.User, Err: errors.New("only root may: the jobs write to the nodes' stores"),
			Remedy: "run it as root of a host with the scheduler's commands; without --partition and --nodes it warms your own store",
		}
	}
	for _, e := range entries {
		im := imageOf(e)
		im.State = warmResolved
		result.Images = append(result.Images, im)
	}
	by, err := c.scheduler(s)
	if err != nil {
		return err
	}
	if result.Nodes, err = by.nodes(ctx, &c.warmElsewhere); err != nil {
		return err
	}
	list, err := warm.Encode(entries)
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	usable := 0
	for _, n := range result.Nodes {
		if !n.ended() {
			usable++
		}
	}
	spread := c.Spread
	if spread == 0 {
		spread = min(time.Duration(usable-1)*time.Second, 5*time.Minute)
	}
	script := func(i int) string { return c.script(self, list, i, spread) }
	board := s.newBoard(result.Nodes)
	defer board.close()
	limited, cancel := context.WithTimeout(ctx, c.Wait)
	defer cancel()
	if err := by.run(limited, &c.warmElsewhere, result.Nodes, script, board.changed); err != nil {
		return err
	}
	return context.Cause(ctx)
}

// listEnd ends the list within a job's script.
const listEnd = "END-OF-BERTH-LIST"

// script is a node's job: everything that it needs is in it, so that nodes and
// submit host need share no file. Schedulers may give a job a mount namespace of
// its own; the node's leases and mounts are in the node's.
func (c *warmCmd) script(self string, list []byte, i int, spread time.Duration) string {
	args := []string{
		self, "--progress=none", "warm", "--report", "-f", "-",
		fmt.Sprintf("--start=%d", i), fmt.Sprintf("--spread=%s", max(spread, 0)), fmt.Sprintf("--parallel=%d", c.Parallel),
		fmt.Sprintf("--load-wait=%s", c.LoadWait),
	}
	if c.Rate > 0 {
		args = append(args, fmt.Sprintf("--rate=%dB", c.Rate))
	}
	if c.MaxLoad > 0 {
		args = append(args, fmt.Sprintf("--max-load=%g", c.MaxLoad))
	}
	for i, a := range args {
		args[i] = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
	}
	path := "/usr/sbin:/usr/bin:/sbin:/bin"
	if program, err := exec.LookPath("scontrol"); err == nil {
		path = filepath.Dir(program) + ":" + path
	}
	return fmt.Sprintf("#!/bin/sh\nPATH='%s' exec nsenter --target 1 --mount -- %s <<'%s'\n%s%s\n", path, strings.Join(args, " "), listEnd, list, listEnd)
}

func (c *warmCmd) scheduler(s *session) (scheduler, error) {
	has := func(program string) bool {
		_, err := exec.LookPath(program)
		return err == nil
	}
	switch {
	case c.Scheduler == "slurm", c.Scheduler == "auto" && has("sbatch"):
		return &slurmWarm{s}, nil
	case c.Scheduler == "pbs", c.Scheduler == "auto" && has("qsub"):
		return &pbsWarm{s}, nil
	}
	return nil, &fault.Error{
		Op: "warm other nodes", Blame: fault.User, Err: errors.New("neither sbatch nor qsub is here"),
		Remedy: "run it on a host with the scheduler's commands, or on each node: berth warm -f LOCKFILE",
	}
}

// ask runs a scheduler's command and returns what it prints.
func (s *session) ask(ctx context.Context, stdin string, program string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, askSlurm)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env, cmd.Dir, cmd.Stdin = s.outsideOfJobs(), "/", strings.NewReader(stdin)
	out, err := cmd.Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && len(exit.Stderr) > 0 {
		err = errors.New(lastLine(string(exit.Stderr)))
	}
	return string(out), fault.Wrap("run", program, fault.Site, "see whether it works here: "+program+" "+strings.Join(args, " "), err)
}
