package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/launcher"
	"github.com/berth-hpc/berth/launcher/wire"
	"github.com/berth-hpc/berth/prolog/jobstate"
)

// taskCmd is what PBS's hook puts in front of every task of a job with a
// container. It runs as the job's user and becomes the task, inside.
type taskCmd struct {
	Job     string   `required:"" help:"The job, as PBS calls it."`
	Shell   bool     `help:"The command is a login shell, which the image may not have."`
	Command []string `arg:"" passthrough:"" help:"The task's arguments, each with = in front and escaped as in URLs."`
}

// Run does not return when all is well. PBS calls it by the name "-berth", as
// it calls login shells; nothing here looks at that.
func (c *taskCmd) Run(ctx context.Context, s *session) error {
	if c.Command[0] == "--" {
		c.Command = c.Command[1:]
	}
	argv, err := unescapeArguments(c.Command)
	if err != nil {
		return err
	}
	return notStarted{s.joinJob(ctx, c.Job, func(r *launcher.Running) ([]string, error) {
		if c.Shell {
			return s.orOtherShell(r, argv)
		}
		return argv, nil
	})}
}

// orOtherShell is argv, a shell that only reads the path of the job's script,
// or a terminal, with one that the container has.
func (s *session) orOtherShell(r *launcher.Running, argv []string) ([]string, error) {
	shell, err := findShell(r, argv[0])
	if err != nil {
		return nil, err
	}
	if shell[0] != argv[0] {
		fmt.Fprintf(s.stderr, "berth: the image has no %s; the job begins with %s\n", printable(argv[0]), printable(shell[0]))
	}
	return append(shell, argv[1:]...), nil
}

// unescapeArguments undoes what pbs/berth_hook.py does: PBS hands arguments on
// as lines, and drops empty ones.
func unescapeArguments(escaped []string) ([]string, error) {
	var argv []string
	for _, e := range escaped {
		text, ok := strings.CutPrefix(e, "=")
		plain, err := url.PathUnescape(text)
		if !ok || err != nil {
			return nil, &fault.Error{Op: "read the task's arguments", Arg: e, Blame: fault.Bug, Err: errors.New("the hook did not escape it")}
		}
		argv = append(argv, plain)
	}
	if len(argv) == 0 {
		return nil, &fault.Error{Op: "read the task's arguments", Blame: fault.Bug, Err: errors.New("there are none")}
	}
	return argv, nil
}

// A notStarted is why a job's task did not run in its container. Its exit
// status is that of container programs for this, whoever is to blame: PBS must
// not take it for a status of the command.
type notStarted struct{ error }

// ExitStatus is for report.
func (notStarted) ExitStatus() int { return 125 }

// Unwrap lets the fault be seen.
func (n notStarted) Unwrap() error { return n.error }

// joinJob waits for the container that the tasks of a PBS job share on this
// node, and turns the process into the command inside.
func (s *session) joinJob(ctx context.Context, job string, command func(*launcher.Running) ([]string, error)) error {
	if err := hideMemory(); err != nil {
		return err
	}
	id, err := jobstate.ParseJobID(job)
	if err != nil {
		return fault.Wrap("join the container of job", job, fault.User, "see PBS_JOBID", err)
	}
	cfg, err := s.settings()
	if err != nil {
		return err
	}
	record, err := s.awaitRecord(ctx, cfg.Node.RunDir, id)
	if err != nil {
		return err
	}
	r, err := findHolder(record.PID, job)
	if err != nil {
		return err
	}
	argv, err := command(r)
	if err != nil {
		return err
	}
	return s.becomeTask(r, record, argv)
}

// awaitRecord prints where the preparation stands, while it takes its time.
func (s *session) awaitRecord(ctx context.Context, runDir string, id jobstate.JobID) (*jobstate.Record, error) {
	lines := make(chan string)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		tick, latest := time.NewTicker(tellEvery), ""
		defer tick.Stop()
		for {
			select {
			case latest = <-lines:
			case <-tick.C:
				fmt.Fprintf(s.stderr, "berth: %s\n", printable(latest))
			case <-ctx.Done():
				return
			}
		}
	}()
	record, err := jobstate.WaitForRecord(ctx, runDir, id, func(line string) { lines <- line })
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return record, err
}

// findHolder finds the container by the process that keeps it or, if somebody
// killed that, by any other of the job's in it.
func findHolder(pid int, job string) (*launcher.Running, error) {
	if r, err := launcher.RunningAt(pid); err == nil && r.Job == job {
		return r, nil
	}
	r, err := running(launcher.FindRunning).find(target{text: job})
	if errors.Is(err, errNotHere) {
		return nil, &fault.Error{
			Op: "join the container of job", Arg: job, Blame: fault.User,
			Err:    errors.New("the process berth-hold that keeps it was killed"),
			Remedy: "submit the job again, and leave that process alone",
		}
	}
	return r, err
}

// becomeTask turns the process into argv in the container r. It starts where
// PBS, or the caller, started it, if the container has that folder and the job
// did not name another one.
func (s *session) becomeTask(r *launcher.Running, record *jobstate.Record, argv []string) error {
	tools, err := s.findTools()
	if err != nil {
		return err
	}
	container, users, err := r.Open()
	if err != nil {
		return fault.Wrap("join container", nameOf(r), fault.User, "submit the job again", err)
	}
	defer container.Close()
	defer users.Close()
	if !record.Workdir {
		container.Dir, _ = os.Getwd() // "" where that folder is gone
	}
	given, err := readVariables(nil, r.Env)
	if err != nil {
		return err
	}
	environ, keep := given.over(s.withoutLogins()), given.names()
	if path := pathWith(r.Result, s.env("PATH"), record.PBSExec); path != "" && !slices.Contains(keep, "PATH") {
		environ, keep = append(withoutVariable(environ, "PATH"), "PATH="+path), append(keep, "PATH")
	}
	return container.Exec(tools.join, users, r.Remap, argv, environ, keep)
}

// pathWith is the image's PATH, or own where it sets none, with PBS's programs
// at its end, so that mpirun finds pbs_tmrsh; "" if it is to stay as it is.
func pathWith(result []byte, own, pbsExec string) string {
	m, err := wire.DecodeUpTo(result, launcher.MaxResult)
	if err != nil || pbsExec == "" {
		return ""
	}
	for _, v := range m.All("env") {
		if path, ok := strings.CutPrefix(v, "PATH="); ok {
			own = path
		}
	}
	return own + ":" + filepath.Join(pbsExec, "bin")
}
