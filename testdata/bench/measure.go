package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// A bench is one run.
type bench struct {
	top    string // of the repository, with what is measured below build
	work   string // files for all machines, where they are /opt/bench
	out    string // folder for the report
	owner  string // the process with which clusters end
	rounds int
	site   *site // nil until a section wants it
	report Report
}

// A section is what can be asked for by name.
type section struct {
	name   string
	images []string // that it needs
	run    func(context.Context) error
}

// sections are all, in their order. The join comes last of those on the
// cluster, because it exchanges the plugin; scale has clusters of its own.
func (b *bench) sections() []section {
	jobs := []string{"tiny", "mpi"}
	return []section{
		{"pull", []string{smallImage, largeImage}, b.pull},
		{"start", []string{"tiny"}, b.start},
		{"files", []string{"python"}, b.files},
		{"srun", jobs, b.onCluster(b.srun)},
		{"submit", jobs, b.onCluster(b.submit)},
		{"mpi", jobs, b.onCluster(b.mpi)},
		{"join", jobs, b.onCluster(b.join)},
		{"go", nil, b.goBenchmarks},
		{"scale", nil, b.scale},
	}
}

// limit bounds each kind of measurement; rounds that do not fit are left out.
// With 30 rounds all of them together stay near a quarter of an hour at worst.
func (b *bench) limit() time.Duration {
	return max(50*time.Second*time.Duration(b.rounds)/30, 20*time.Second)
}

func measure(ctx context.Context, args []string) error {
	b := &bench{}
	flags := b.flags("bench")
	flags.IntVar(&b.rounds, "rounds", 30, "rounds of each comparison")
	only := flags.String("only", "", "what to measure: names with commas between; everything by default")
	revision := flags.String("revision", "unknown", "of the repository")
	if err := flags.Parse(args); err != nil {
		return err
	}
	chosen, err := choose(b.sections(), *only)
	if err != nil {
		return err
	}
	b.report = Report{Began: time.Now(), Revision: *revision, Rounds: b.rounds, Machine: machine(b.work), Peers: peers(ctx, b.top)}
	for _, s := range chosen {
		b.report.Sections = append(b.report.Sections, s.name)
	}
	err = b.runAll(ctx, chosen)
	fmt.Print(b.report.targets())
	return err
}

// runAll runs sections and writes the report after each. One that fails is in the
// report, and the next one runs; so does an interrupted run end with a report.
func (b *bench) runAll(ctx context.Context, chosen []section) error {
	var failed error
	for _, s := range chosen {
		err := errors.Join(ctx.Err(), b.build(ctx, s.images))
		if err == nil {
			err = s.run(ctx)
		}
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("%s: %w", s.name, err))
			b.report.Failures = append(b.report.Failures, Failure{s.name, err.Error()})
		}
		b.report.Ended, b.report.Machine.LoadEnded = time.Now(), load()
		if err := b.report.write(b.out); err != nil {
			return errors.Join(failed, err)
		}
	}
	return failed
}

func (b *bench) flags(name string) *flag.FlagSet {
	flags := flag.NewFlagSet(name, flag.ContinueOnError)
	flags.StringVar(&b.top, "top", "", "the repository")
	flags.StringVar(&b.work, "work", "", "work folder")
	flags.StringVar(&b.out, "out", "", "folder for the report")
	flags.StringVar(&b.owner, "owner", "", "process with which clusters end")
	return flags
}

// choose picks sections by their names, in their own order.
func choose(all []section, only string) ([]section, error) {
	if only == "" {
		return all, nil
	}
	wanted := map[string]bool{}
	for name := range strings.SplitSeq(only, ",") {
		wanted[name] = true
	}
	var chosen []section
	for _, s := range all {
		if wanted[s.name] {
			chosen = append(chosen, s)
			delete(wanted, s.name)
		}
	}
	if len(wanted) > 0 {
		return nil, fmt.Errorf("there is nothing called %s to measure", strings.Join(slices.Sorted(maps.Keys(wanted)), ", "))
	}
	return chosen, nil
}

// build has images in the cache.
func (b *bench) build(ctx context.Context, images []string) error {
	if len(images) == 0 {
		return nil
	}
	_, err := output(exec.CommandContext(ctx, filepath.Join(b.top, "testdata/images/build"), images...), nil)
	return err
}

// compare adds a line to the report and prints it. The line stays when there
// are no numbers for it, and says why, as the error does.
func (b *bench) compare(c comparison, samples []Sample, value func(Sample) (float64, bool)) error {
	base := c.base
	if base == "" {
		base = c.ours
	}
	l := c.line(pairs(samples, base, c.ours, value))
	b.add(l)
	if l.Missing != "" {
		return fmt.Errorf("%s: %s: %s", l.Section, l.Name, l.Missing)
	}
	return nil
}

// unlessMissing compares, or adds a line that says why one of the sides is not
// there. That is no error.
func (b *bench) unlessMissing(c comparison, missing map[string]string, samples []Sample, value func(Sample) (float64, bool)) error {
	for _, name := range []string{c.base, c.ours} {
		if why := missing[name]; why != "" {
			b.add(c.missing(why))
			return nil
		}
	}
	return b.compare(c, samples, value)
}

func (b *bench) add(l Line) {
	b.report.Lines = append(b.report.Lines, l)
	fmt.Println(l)
}

func (b *bench) addTable(t Table) {
	b.report.Tables = append(b.report.Tables, t)
	fmt.Println(t)
}
