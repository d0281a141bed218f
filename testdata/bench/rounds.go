package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// A Variant is one of the things that are compared: a command line.
type Variant struct {
	Name string   `json:"name"`
	Args []string `json:"args"`
}

// A Sample is one run of a variant. Times are seconds; CPU is user and system
// time of the process and of the children it waited for.
type Sample struct {
	Variant string  `json:"variant"`
	Round   int     `json:"round"`
	Wall    float64 `json:"wall"`
	CPU     float64 `json:"cpu"`
	Code    int     `json:"code"`
	Out     string  `json:"out,omitempty"`
	// Of pulls only: the largest resident set of one process and what was
	// written to disks, in bytes.
	RSS     float64 `json:"rss,omitempty"`
	Written float64 `json:"written,omitempty"`
}

// oneRun bounds a single run.
const oneRun = time.Minute

// order is that of the variants in a round: reversed in every other one and
// rotated in between, so that none always follows the same.
func order(vs []Variant, round int) []Variant {
	turn := round / 2 % len(vs)
	out := append(slices.Clone(vs[turn:]), vs[:turn]...)
	if round%2 == 1 {
		slices.Reverse(out)
	}
	return out
}

// interleave runs every variant once to warm up, and then rounds of all
// variants: A B, B A, A B, … It ends early, after whole rounds, with ctx.
func interleave(ctx context.Context, rounds int, vs []Variant, run func(Variant) Sample) []Sample {
	warmUp(1, vs, run)
	return inTurns(ctx, rounds, func(int) []Variant { return vs }, run)
}

func warmUp(times int, vs []Variant, run func(Variant) Sample) {
	for range times {
		for _, v := range vs {
			run(v)
		}
	}
}

// inTurns is interleave without warming up, of the variants that each round has;
// the first round is made in any case.
func inTurns(ctx context.Context, rounds int, of func(round int) []Variant, run func(Variant) Sample) []Sample {
	var samples []Sample
	for round := range rounds {
		if round > 0 && ctx.Err() != nil {
			break
		}
		for _, v := range order(of(round), round) {
			s := run(v)
			s.Variant, s.Round = v.Name, round
			samples = append(samples, s)
		}
	}
	return samples
}

// execute runs a prepared command and times it.
func execute(cmd *exec.Cmd) Sample {
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = time.Second
	begin := time.Now()
	err := cmd.Run()
	s := Sample{Wall: time.Since(begin).Seconds(), Code: -1}
	if p := cmd.ProcessState; p != nil {
		s.Code = p.ExitCode()
		s.CPU = (p.UserTime() + p.SystemTime()).Seconds()
	}
	s.Out = strings.TrimSpace(out.String()[:min(out.Len(), 500)])
	if s.Code == 0 && err != nil {
		s.Code = -1
	}
	return s
}

// A Spec is what the program, started on a machine of the cluster as
// `bench rounds`, reads as JSON on its standard input. It answers with the
// samples.
type Spec struct {
	Rounds   int       `json:"rounds"`
	Warm     int       `json:"warm"` // runs of each before, which are not counted
	Variants []Variant `json:"variants"`
	// Settle is run before each sample until it prints nothing.
	Settle []string      `json:"settle"`
	Limit  time.Duration `json:"limit"`
}

func runRounds(ctx context.Context, in io.Reader, out io.Writer) error {
	var spec Spec
	if err := json.NewDecoder(in).Decode(&spec); err != nil {
		return fmt.Errorf("read what to run: %w", err)
	}
	bounded, cancel := context.WithTimeout(ctx, spec.Limit)
	defer cancel()
	var unsettled error
	run := func(v Variant) Sample {
		unsettled = errors.Join(unsettled, settle(ctx, spec.Settle))
		one, cancel := context.WithTimeout(ctx, oneRun)
		defer cancel()
		return execute(exec.CommandContext(one, v.Args[0], v.Args[1:]...))
	}
	warmUp(spec.Warm, spec.Variants, run)
	samples := inTurns(bounded, spec.Rounds, func(int) []Variant { return spec.Variants }, run)
	if unsettled != nil {
		return unsettled
	}
	return json.NewEncoder(out).Encode(samples)
}

// settle waits for the jobs of the sample before to be gone from their nodes:
// what a job leaves to do must not be charged to the next one.
func settle(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, oneRun)
	defer cancel()
	for {
		out, err := exec.CommandContext(ctx, args[0], args[1:]...).Output()
		if err != nil {
			return fmt.Errorf("wait for %s: %w", strings.Join(args, " "), err)
		}
		if len(bytes.TrimSpace(out)) == 0 {
			return nil
		}
	}
}

// pairs takes a value of the samples of two variants, round by round. Rounds
// that have both and in which one failed are dropped and counted; failed is what
// the first failure was.
func pairs(samples []Sample, base, ours string, value func(Sample) (float64, bool)) (ps []pair, dropped int, failed string) {
	rounds := map[int]map[string]*float64{}
	for _, s := range samples {
		if s.Variant != base && s.Variant != ours {
			continue
		}
		if rounds[s.Round] == nil {
			rounds[s.Round] = map[string]*float64{}
		}
		v, ok := value(s)
		if ok && s.Code == 0 {
			rounds[s.Round][s.Variant] = &v
			continue
		}
		rounds[s.Round][s.Variant] = nil
		if failed == "" {
			failed = s.failure()
		}
	}
	for _, round := range slices.Sorted(maps.Keys(rounds)) {
		b, hasBase := rounds[round][base]
		o, hasOurs := rounds[round][ours]
		switch {
		case !hasBase || !hasOurs:
		case b == nil || o == nil:
			dropped++
		default:
			ps = append(ps, pair{*b, *o})
		}
	}
	return ps, dropped, failed
}

// failure is what s says of its end.
func (s Sample) failure() string {
	if s.Code == 0 {
		return fmt.Sprintf("%s printed no such number: %s", s.Variant, s.Out)
	}
	return fmt.Sprintf("%s ended with %d: %s", s.Variant, s.Code, s.Out)
}

func wall(s Sample) (float64, bool) { return s.Wall, true }
func cpu(s Sample) (float64, bool)  { return s.CPU, true }
