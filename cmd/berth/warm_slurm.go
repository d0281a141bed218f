package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/berth-hpc/berth/fault"
)

// slurmWarm runs warming jobs under Slurm.
type slurmWarm struct{ s *session }

// warmJob is the jobs' name.
const warmJob = "berth-warm"

// nodes implements scheduler.
func (w *slurmWarm) nodes(ctx context.Context, e *warmElsewhere) ([]warmedNode, error) {
	args := []string{"-h", "-N", "-o", "%N|%R|%T|%E"}
	if e.Partition != "" {
		args = append(args, "-p", e.Partition)
	}
	var wanted []string
	if e.Nodes != "" {
		args = append(args, "-n", e.Nodes)
		names, err := w.s.ask(ctx, "", "scontrol", "show", "hostnames", e.Nodes)
		if err != nil {
			return nil, err
		}
		wanted = strings.Fields(names)
	}
	text, err := w.s.ask(ctx, "", "sinfo", args...)
	if err != nil {
		return nil, err
	}
	nodes := parseSinfo(text)
	for _, name := range wanted {
		if !slices.ContainsFunc(nodes, func(n warmedNode) bool { return n.Node == name }) {
			nodes = append(nodes, warmedNode{Node: name, State: nodeSkipped, Reason: "Slurm has no such node there"})
		}
	}
	if len(nodes) == 0 {
		return nil, &fault.Error{
			Op: "warm the nodes of", Arg: e.Partition + e.Nodes, Blame: fault.User, Err: errors.New("there are none in Slurm"),
			Remedy: "see sinfo -N",
		}
	}
	return nodes, nil
}

// takesJobs are the states of nodes on which a job may start, now or soon.
var takesJobs = []string{"idle", "mixed", "allocated", "completing", "planned"}

// parseSinfo reads NODE|PARTITION|STATE|REASON, a line for each partition of a
// node. States of nodes that do not answer end with *, of those that are off
// with ~ and others.
func parseSinfo(text string) []warmedNode {
	var nodes []warmedNode
	for line := range strings.Lines(text) {
		f := strings.SplitN(strings.TrimSpace(line), "|", 4)
		if len(f) != 4 || slices.ContainsFunc(nodes, func(n warmedNode) bool { return n.Node == f[0] }) {
			continue
		}
		n := warmedNode{Node: f[0], partition: f[1], State: nodeWaiting}
		if !slices.Contains(takesJobs, f[2]) {
			n.State, n.Reason = nodeSkipped, f[2]
			if f[3] != "none" && f[3] != "" {
				n.Reason += ", " + f[3]
			}
		}
		nodes = append(nodes, n)
	}
	return nodes
}

// run implements scheduler.
func (w *slurmWarm) run(ctx context.Context, e *warmElsewhere, nodes []warmedNode, script func(int) string, changed func()) error {
	defer w.cancel(nodes)
	for i := range nodes {
		if nodes[i].ended() {
			continue
		}
		if err := w.submit(ctx, e, &nodes[i], script(i)); err != nil {
			nodes[i].State, nodes[i].Reason = nodeFailed, err.Error()
		}
	}
	changed()
	const look = 2 * time.Second
	for slices.ContainsFunc(nodes, func(n warmedNode) bool { return !n.ended() }) {
		if pause(ctx, look); ctx.Err() != nil {
			break
		}
		text, err := w.s.ask(ctx, "", "squeue", "-h", "--states=all", "--name="+warmJob, "--user=root", "-o", "%i|%T|%r|%k")
		if err != nil {
			w.s.log.WithError(err).Warn("asking again") // slurmctld may be restarting
			continue
		}
		follow(nodes, text)
		changed()
	}
	return nil
}

// submit has a job run on n: the first free CPU there does.
func (w *slurmWarm) submit(ctx context.Context, e *warmElsewhere, n *warmedNode, script string) error {
	args := []string{
		"--parsable", "--job-name=" + warmJob, "--partition=" + n.partition, "--nodelist=" + n.Node, "--nodes=1", "--ntasks=1",
		"--mem=" + e.Memory, fmt.Sprintf("--time=%d", max(1, int(e.TimeLimit.Minutes()))),
		"--output=/dev/null", "--chdir=/", "--export=NIL", "--no-requeue",
	}
	out, err := w.s.ask(ctx, script, "sbatch", append(args, e.JobOption...)...)
	if err != nil {
		return err
	}
	n.Job, _, _ = strings.Cut(strings.TrimSpace(out), ";")
	return nil
}

// follow takes over what squeue says of the nodes' jobs: JOB|STATE|REASON|COMMENT.
// A job that it has no longer has ended as it was last heard of.
func follow(nodes []warmedNode, text string) {
	jobs := map[string][]string{}
	for line := range strings.Lines(text) {
		if f := strings.SplitN(strings.TrimSpace(line), "|", 4); len(f) == 4 {
			jobs[f[0]] = f
		}
	}
	for i := range nodes {
		n := &nodes[i]
		if n.ended() {
			continue
		}
		f, known := jobs[n.Job]
		if !known {
			f = []string{n.Job, "gone", "Slurm has forgotten the job", ""}
		}
		var r nodeReport
		if json.Unmarshal([]byte(f[3]), &r) == nil {
			n.Report = &r
		}
		n.State, n.Reason = stateOfWarming(f[1], f[2], n.Report)
	}
}

// stateOfWarming is what a job's state and report mean for its node.
func stateOfWarming(state, reason string, r *nodeReport) (string, string) {
	switch {
	case state == "PENDING" || state == "CONFIGURING":
		return nodeWaiting, reason
	case state == "RUNNING" || state == "COMPLETING" || state == "SUSPENDED":
		return nodeRunning, ""
	case state == "COMPLETED":
		return nodeReady, ""
	case r != nil && r.Ended && r.Ready == r.Of:
		return nodeReady, ""
	case r != nil && r.Ready > 0:
		return nodePartial, strings.ToLower(state)
	}
	return nodeFailed, strings.ToLower(state) + " (" + reason + ")"
}

// cancel ends the jobs that have not begun when nobody follows them any more;
// those that run do what they were told.
func (w *slurmWarm) cancel(nodes []warmedNode) {
	ctx := context.Background()
	for i := range nodes {
		n := &nodes[i]
		if n.State == nodeWaiting && n.Job != "" {
			_, err := w.s.ask(ctx, "", "scancel", "--state=PENDING", n.Job)
			n.State, n.Reason = nodeBusy, "its job did not begin in time"
			if err != nil {
				n.Reason += "; cancel job " + n.Job + " yourself: " + err.Error()
			}
		}
	}
}
