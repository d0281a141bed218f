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
)

// start compares how long a container takes to run `true`, one after the other
// and 128 of them 16 at a time, and what a container takes of the memory.
func (b *bench) start(ctx context.Context) error {
	spec, err := json.Marshal(StartSpec{Dir: b.work, Rounds: b.rounds, Limit: 2 * b.limit()})
	if err != nil {
		return err
	}
	// A session and mounts of its own: what stands ready ends with it.
	out, err := output(exec.CommandContext(ctx, "unshare", "--mount", "--propagation=slave", "setsid", "--wait",
		filepath.Join(b.work, "bench"), "start"), spec)
	if err != nil {
		return err
	}
	var r StartResult
	if err := json.Unmarshal(out, &r); err != nil {
		return fmt.Errorf("read samples: %w", err)
	}
	for name, why := range r.Missing {
		fmt.Printf("not measured: %s: %s\n", name, why)
	}
	failed := []error{b.starts(r), b.bursts(r)}
	for name, samples := range r.Memory {
		c := comparison{section: "memory", name: name, unit: "MB", ours: name, scale: 1e-6, statistic: "median"}
		if name != taskMemory {
			c.target = mostMemory
		}
		failed = append(failed, b.compare(c, samples, wall))
	}
	return errors.Join(failed...)
}

func (b *bench) starts(r StartResult) error {
	var failed []error
	for _, c := range []struct {
		base, ours string
		target     float64
	}{
		{bareExec, join, mostJoin},
		{bwrap, warmRun, mostWarm},
		{minimal, create, mostCreate},
		{bareExec, warmRun, 0},
		{bwrap, coldRun, 0},
		{bareExec, bwrap, 0},
		{bareExec, chRun, 0},
		{bareExec, podmanRun, 0},
	} {
		if r.Missing[c.base] != "" || r.Missing[c.ours] != "" {
			continue
		}
		failed = append(failed, b.compare(comparison{
			section: "start of true", name: c.ours + " against " + c.base, unit: "ms", base: c.base, ours: c.ours,
			scale: 1000, statistic: "ratio", target: c.target,
		}, r.One, wall))
	}
	return errors.Join(failed...)
}

func (b *bench) bursts(r StartResult) error {
	var failed []error
	for _, ours := range []string{bwrap, warmRun, coldRun} {
		if r.Missing[ours] == "" {
			failed = append(failed, b.compare(comparison{
				section: "128 starts of true, 16 at a time", name: ours + " against " + bareExec, unit: "s", base: bareExec, ours: ours,
				scale: 1, statistic: "ratio",
			}, r.Burst, wall))
		}
	}
	return errors.Join(failed...)
}
