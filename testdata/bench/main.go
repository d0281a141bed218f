// Command bench measures what Berth costs: each thing with Berth and without,
// in turns, some of it on a real Slurm cluster on this machine. The script beside
// it builds what is needed and calls it as root; docs/benchmarks.md says what is
// measured and how.
//
//	bench measure   everything; writes the report
//	bench compare   two builds of Berth; has benchstat compare them
//	bench rounds    the part that runs on a machine of the cluster
//	bench files     the part that compares file systems, in a mount namespace of its own
//	bench start     the part that compares starts, in a session and a mount namespace of its own
//	bench runs      the part that compares starts of two builds, likewise
//	bench inside    makes containers without overlay (package launcher starts it)
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	// Lets this program make user namespaces as berth-create does.
	_ "github.com/berth-hpc/berth/launcher/nsenter"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	mode := ""
	if len(args) > 0 {
		mode = args[0]
	}
	switch mode {
	case "inside":
		return runBare(os.NewFile(3, "channel"))
	case "rounds":
		return runRounds(ctx, os.Stdin, os.Stdout)
	case "files":
		return runFiles(ctx, os.Stdin, os.Stdout)
	case "start":
		return runStart(ctx, os.Stdin, os.Stdout)
	case "runs":
		return runRuns(ctx, os.Stdin, os.Stdout)
	case "measure":
		return measure(ctx, args[1:])
	case "compare":
		return compareBuilds(ctx, args[1:])
	}
	return errors.New("started by testdata/bench/bench, not by hand")
}
