package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
)

// Targets of starts.
const (
	mostWarm   = 1.2 // of bubblewrap
	mostJoin   = 1.5 // of a bare exec
	mostCreate = 1.2 // of a minimal libcontainer program
	mostMemory = 0.3 // MB per container
)

// The variants of starts.
const (
	bareExec  = "bare exec"
	join      = "join"
	warmRun   = "warm berth run"
	coldRun   = "berth run --no-reuse"
	bwrap     = "bubblewrap"
	chRun     = "ch-run"
	podmanRun = "podman run"
	create    = "managed create"
	minimal   = "minimal libcontainer"
	limitC    = "minimal C"
)

// start compares how long a container takes to run `true`, one after the other
// and 128 of them 16 at a time, and what a container takes of the memory.
func (b *bench) start(ctx context.Context) error {
	if err := b.save(ctx, filepath.Join(b.top, "build"), "tiny", filepath.Join(b.work, "start", "tiny.sqsh")); err != nil {
		return err
	}
	spec, err := json.Marshal(StartSpec{Dir: b.work, Rounds: b.rounds, Limit: 2 * b.limit()})
	if err != nil {
		return err
	}
	out, err := output(b.alone(ctx, "start"), spec)
	if err != nil {
		return err
	}
	var r StartResult
	if err := json.Unmarshal(out, &r); err != nil {
		return fmt.Errorf("read samples: %w", err)
	}
	return errors.Join(b.starts(r), b.bursts(r), b.memory(r))
}

// alone is a mode of this program in a session and with mounts of its own: what
// stands ready for users ends with it.
func (b *bench) alone(ctx context.Context, mode string) *exec.Cmd {
	return exec.CommandContext(ctx, "unshare", "--mount", "--propagation=slave", "setsid", "--wait", filepath.Join(b.work, "bench"), mode)
}

func (b *bench) starts(r StartResult) error {
	var failed error
	for _, c := range []struct {
		base, ours string
		target     *Target
	}{
		{bareExec, join, most(mostJoin)},
		{bwrap, warmRun, most(mostWarm)},
		{minimal, create, most(mostCreate)},
		{limitC, warmRun, nil},
		{limitC, coldRun, nil},
		{bwrap, coldRun, nil},
		{bareExec, warmRun, nil},
		{bareExec, limitC, nil},
		{bareExec, bwrap, nil},
		{bareExec, chRun, nil},
		{bareExec, podmanRun, nil},
	} {
		failed = errors.Join(failed, b.unlessMissing(comparison{
			section: "start of true", name: c.ours + " against " + c.base, unit: "ms", base: c.base, ours: c.ours,
			scale: 1000, statistic: "ratio", target: c.target,
		}, r.Missing, r.One, wall))
	}
	return failed
}

func (b *bench) bursts(r StartResult) error {
	var failed error
	for _, ours := range []string{limitC, bwrap, join, warmRun, coldRun} {
		failed = errors.Join(failed, b.unlessMissing(comparison{
			section: "128 starts of true, 16 at a time", name: ours + " against " + bareExec, unit: "s", base: bareExec, ours: ours,
			scale: 1, statistic: "ratio",
		}, r.Missing, r.Burst, wall))
	}
	return failed
}

func (b *bench) memory(r StartResult) error {
	var failed error
	for _, name := range []string{managedMemory, readyMemory, taskMemory} {
		c := comparison{section: "memory", name: name, unit: "MB", ours: name, scale: 1e-6, statistic: "median", target: most(mostMemory)}
		if name == taskMemory {
			c.target = nil
		}
		failed = errors.Join(failed, b.compare(c, r.Memory[name], wall))
	}
	return failed
}
