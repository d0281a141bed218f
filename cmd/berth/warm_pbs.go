package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"

	"github.com/berth-hpc/berth/fault"
)

// pbsWarm runs warming jobs under PBS, which has to let root submit
// (qmgr -c "set server acl_roots += root@HOST"). `qsub -W block=true` waits for
// the job and ends with its exit status: nothing else is asked.
type pbsWarm struct{ s *session }

// nodes implements scheduler.
func (w *pbsWarm) nodes(ctx context.Context, e *warmElsewhere) ([]warmedNode, error) {
	if e.Partition != "" {
		return nil, &fault.Error{
			Op: "warm the nodes of", Arg: e.Partition, Blame: fault.User, Err: errors.New("PBS has no partitions"),
			Remedy: "name the nodes: --nodes=n1,n2, or --nodes=all",
		}
	}
	text, err := w.s.ask(ctx, "", "pbsnodes", "-a")
	if err != nil {
		return nil, err
	}
	known := parsePbsnodes(text)
	if e.Nodes == "all" {
		return known, nil
	}
	var nodes []warmedNode
	for name := range strings.SplitSeq(e.Nodes, ",") {
		i := slices.IndexFunc(known, func(n warmedNode) bool { return n.Node == name })
		if i < 0 {
			nodes = append(nodes, warmedNode{Node: name, State: nodeSkipped, Reason: "PBS has no such node"})
			continue
		}
		nodes = append(nodes, known[i])
	}
	return nodes, nil
}

// parsePbsnodes reads `pbsnodes -a`: a name at the beginning of a line, and its
// attributes, indented, below.
func parsePbsnodes(text string) []warmedNode {
	var nodes []warmedNode
	for line := range strings.Lines(text) {
		trimmed := strings.TrimSpace(line)
		switch {
		case trimmed == "":
		case line[0] != ' ' && line[0] != '\t':
			nodes = append(nodes, warmedNode{Node: trimmed, State: nodeWaiting})
		case len(nodes) > 0 && strings.HasPrefix(trimmed, "state = "):
			state := strings.TrimPrefix(trimmed, "state = ")
			for word := range strings.SplitSeq(state, ",") {
				if !slices.Contains([]string{"free", "job-busy", "job-exclusive", "busy", "resv-exclusive"}, word) {
					nodes[len(nodes)-1].State, nodes[len(nodes)-1].Reason = nodeSkipped, state
				}
			}
		}
	}
	return nodes
}

// run implements scheduler.
func (w *pbsWarm) run(ctx context.Context, e *warmElsewhere, nodes []warmedNode, script func(int) string, changed func()) error {
	var group sync.WaitGroup
	var mu sync.Mutex
	for i := range nodes {
		n := &nodes[i]
		if n.ended() {
			continue
		}
		n.State = nodeRunning
		group.Go(func() {
			state, reason := w.job(ctx, e, n.Node, script(i))
			mu.Lock()
			defer mu.Unlock()
			n.State, n.Reason = state, reason
			changed()
		})
	}
	group.Wait()
	return nil
}

// job runs one. qsub that is asked to end, asks PBS to end the job.
func (w *pbsWarm) job(ctx context.Context, e *warmElsewhere, node, script string) (state, reason string) {
	args := append([]string{
		"-N", warmJob, "-W", "block=true", "-j", "oe", "-o", "/dev/null", "-r", "n", "-S", "/bin/sh",
		"-l", fmt.Sprintf("select=1:ncpus=1:mem=%s:host=%s", strings.ToLower(e.Memory)+"b", node),
		"-l", fmt.Sprintf("walltime=%d", int(e.TimeLimit.Seconds())),
	}, e.JobOption...)
	cmd := exec.CommandContext(ctx, "qsub", args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = askSlurm
	cmd.Env, cmd.Dir, cmd.Stdin = w.s.outsideOfJobs(), "/", strings.NewReader(script)
	out, err := cmd.CombinedOutput()
	exit, failed := errors.AsType[*exec.ExitError](err)
	switch {
	case err == nil:
		return nodeReady, ""
	case ctx.Err() != nil:
		return nodeBusy, "its job did not end in time"
	case failed && exit.ExitCode() == fault.Site.ExitStatus():
		return nodePartial, lastLine(string(out))
	}
	return nodeFailed, fmt.Sprintf("%v: %s", err, lastLine(string(out)))
}
