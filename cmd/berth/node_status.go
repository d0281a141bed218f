package main

import (
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/berth-hpc/berth/prolog"
)

// nodeStatusCmd shows what a node does for jobs.
type nodeStatusCmd struct {
	JSON bool `name:"json" help:"Print everything as JSON."`
}

// A nodeStatus is what --json prints.
type nodeStatus struct {
	Node         string               `json:"node"`
	Version      string               `json:"version"`
	Store        prolog.StoreStatus   `json:"store"`
	Preparations []prolog.Preparation `json:"preparations"`
	Containers   []psContainer        `json:"containers"`
}

// Run prints the store, then one line per image of a job, then its containers.
func (c *nodeStatusCmd) Run(s *session) error {
	cfg, err := s.site()
	if err != nil {
		return err
	}
	status := nodeStatus{Node: hostname(), Version: berthVersion(), Preparations: []prolog.Preparation{}}
	if status.Store, err = prolog.StatusOfStore(cfg); err != nil {
		return nodeFault("status", err)
	}
	all, err := prolog.Status(cfg)
	if err != nil {
		return nodeFault("status", err)
	}
	status.Preparations = append(status.Preparations, all...)
	if status.Containers, err = containersOfJobs(cfg.RunDir); err != nil {
		return nodeFault("status", err)
	}
	if c.JSON {
		return s.printJSON(status)
	}
	return printStatus(s.stdout, status)
}

func printStatus(out io.Writer, s nodeStatus) error {
	fmt.Fprintf(out, "store: %d images, %s; %s free on its disk\n", s.Store.Images, megabytes(s.Store.Bytes), megabytes(s.Store.Free))
	fmt.Fprintf(out, "counted: %d hits, %d misses, %d failures, %d containers, %s pulled\n\n",
		s.Store.Counts.Hits, s.Store.Counts.Misses, s.Store.Counts.Failed, s.Store.Counts.Containers, megabytes(s.Store.Counts.Pulled))
	if err := printPreparations(out, s.Preparations); err != nil || len(s.Containers) == 0 {
		return err
	}
	fmt.Fprintln(out)
	return printContainers(out, s.Containers, true)
}

func printPreparations(out io.Writer, all []prolog.Preparation) error {
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "JOB\tUID\tIMAGE\tSTATE")
	for _, p := range all {
		fmt.Fprintf(t, "%s\t%d\t%s\t%s\n", p.Job, p.UID, printable(p.Image), printable(stateOf(p)))
	}
	return t.Flush()
}

// stateOf says in a few words how far a preparation is.
func stateOf(p prolog.Preparation) string {
	switch {
	case p.State == nil && p.Busy:
		return "busy: " + orDash(p.Progress)
	case p.State == nil:
		return "stopped without an outcome"
	case p.State.LoginWanted != nil:
		return "wants a login from the job's tasks: " + p.State.Failure.Text
	case p.State.Failure != nil:
		return "failed: " + p.State.Failure.Text
	case p.State.Hit:
		return "ready, was in the store"
	}
	return fmt.Sprintf("ready after %.1f s", p.State.Seconds)
}
