package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A bench is one run: the cluster it measures on, and how much.
type bench struct {
	cluster string // the cluster's script
	dir     string // the cluster's folder
	work    string // files for all machines, where they are /opt/bench
	rounds  int
	report  Report
}

// limit bounds each kind of measurement; rounds that do not fit are left out.
// With 30 rounds all of them together stay near ten minutes at worst.
func (b *bench) limit() time.Duration { return 50 * time.Second * time.Duration(b.rounds) / 30 }

func measure(ctx context.Context, args []string) error {
	b := &bench{report: Report{Machine: machine()}}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.StringVar(&b.cluster, "cluster", "", "the script that runs commands on the cluster")
	flags.StringVar(&b.dir, "dir", "", "the cluster's folder")
	flags.StringVar(&b.work, "work", "", "work folder")
	flags.IntVar(&b.rounds, "rounds", 30, "rounds of each comparison")
	out := flags.String("out", "", "folder for the report")
	only := flags.String("only", "pull,start,join,srun,files,mpi", "what to measure")
	if err := flags.Parse(args); err != nil {
		return err
	}
	// The join is last: it exchanges the plugin.
	for _, s := range []struct {
		name string
		f    func(context.Context) error
	}{{"pull", b.pull}, {"start", b.start}, {"srun", b.srun}, {"mpi", b.mpi}, {"files", b.files}, {"join", b.join}} {
		if !slices.Contains(strings.Split(*only, ","), s.name) {
			continue
		}
		if err := s.f(ctx); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return b.report.write(*out)
}

// machine describes what was measured on.
func machine() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "unknown machine"
	}
	load, _ := os.ReadFile("/proc/loadavg")
	return fmt.Sprintf("%d CPUs, Linux %s, load when it began %s", runtime.NumCPU(),
		unix.ByteSliceToString(u.Release[:]), strings.Join(strings.Fields(string(load))[:1], ""))
}

// compare adds a line to the report and prints it.
func (b *bench) compare(c comparison, samples []Sample, value func(Sample) (float64, bool)) error {
	base := c.base
	if base == "" {
		base = c.ours
	}
	ps, dropped := pairs(samples, base, c.ours, value)
	l, err := c.line(ps, dropped)
	if err != nil {
		return fmt.Errorf("%w; %s", err, firstFailure(samples))
	}
	b.add(l)
	return nil
}

func (b *bench) add(l Line) {
	b.report.Lines = append(b.report.Lines, l)
	fmt.Println(l)
}

func firstFailure(samples []Sample) string {
	for _, s := range samples {
		if s.Code != 0 {
			return fmt.Sprintf("%s ended with %d: %s", s.Variant, s.Code, s.Out)
		}
	}
	return "none failed"
}
