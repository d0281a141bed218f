package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"
)

// FileSpec is what `bench files` reads as JSON on standard input.
type FileSpec struct {
	Dir    string        `json:"dir"`
	Image  string        `json:"image"`
	Rounds int           `json:"rounds"`
	Cold   int           `json:"cold"`
	Limit  time.Duration `json:"limit"` // for each kind of work
}

// FileResult is its answer.
type FileResult struct {
	Samples map[string][]Sample `json:"samples"` // by the name of the work
	Missing map[string]string   `json:"missing"` // why, by root file system
}

const imports = "import"

// work is what is done on the file systems. The walks stay in /usr, where
// none of the containers has mounts.
func work() map[string][]string {
	return map[string][]string{
		imports: {"python3", "-c", "import numpy, scipy.stats, pandas"},
		"find":  {"sh", "-c", "exec find /usr -xdev >/dev/null"},
		"read":  {"sh", "-c", "exec find /usr -xdev -type f -exec cat {} + >/dev/null"},
		"stat":  {"sh", "-c", "exec ls -lnR /usr >/dev/null"},
	}
}

func runFiles(ctx context.Context, in io.Reader, out io.Writer) error {
	var spec FileSpec
	if err := json.NewDecoder(in).Decode(&spec); err != nil {
		return fmt.Errorf("read what to measure: %w", err)
	}
	r, err := newRoots(ctx, spec.Dir, spec.Image)
	if err != nil {
		return err
	}
	if err := r.open(ctx); err != nil {
		return err
	}
	result := FileResult{Samples: map[string][]Sample{}, Missing: r.missing}
	for name, args := range work() {
		limit := spec.Limit
		if name == imports {
			limit *= 2 // slow, and the closest to its target
		}
		bounded, cancel := context.WithTimeout(ctx, limit)
		run := func(v Variant) Sample { return r.run(ctx, v) }
		warmUp(1, r.variants(args, true), run)
		result.Samples[name] = inTurns(bounded, spec.Rounds, func(round int) []Variant { return r.variants(args, round%slowEvery == 0) }, run)
		cancel()
	}
	if result.Samples["cold"], err = cold(ctx, r, spec); err != nil {
		return err
	}
	if err := r.close(ctx); err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(result)
}

// slowEvery is how often FUSE, which is slow and far from any target, has a round.
const slowEvery = 3

func (r *roots) variants(args []string, slow bool) []Variant {
	var vs []Variant
	for _, name := range r.names() {
		if name != inFUSE || slow {
			vs = append(vs, Variant{Name: name, Args: args})
		}
	}
	return vs
}

// cold measures the first imports on file systems of which nothing is in
// memory.
func cold(ctx context.Context, r *roots, spec FileSpec) ([]Sample, error) {
	bounded, cancel := context.WithTimeout(ctx, spec.Limit)
	defer cancel()
	var failed error
	samples := interleave(bounded, spec.Cold, r.variants(work()[imports], false), func(v Variant) Sample {
		if failed == nil {
			failed = r.forget(ctx)
		}
		if failed == nil {
			failed = r.open(ctx)
		}
		if failed != nil {
			return Sample{Code: -1}
		}
		return r.run(ctx, v)
	})
	return samples, failed
}
