package main

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/launcher"
	"github.com/berth-hpc/berth/launcher/wire"
)

// joining is what exec and shell have in common.
type joining struct {
	Node    string   `placeholder:"HOST" help:"Which node of the job, if it has several (the first)."`
	Here    bool     `help:"Look on this machine only, although a job may run elsewhere."`
	Wait    bool     `help:"Wait for the container if it does not run yet."`
	Workdir string   `placeholder:"PATH" help:"Start in this folder of the container, not where its tasks started."`
	Unshare []string `placeholder:"NS" help:"Fail unless the container has namespaces of its own of these kinds (ipc, net, pid, uts)."`
	Env     []string `sep:"none" placeholder:"NAME[=VALUE]" help:"Set a variable, or keep this one's value although the image sets it; repeatable."`
}

// execCmd runs a command in a container that runs, as one more of its tasks.
type execCmd struct {
	joining
	Container string   `arg:"" optional:"" help:"JOB or JOB.STEP of Slurm, JOB of PBS, the NAME of berth run --name, or pid:N for a process in the container. Within a job of PBS, -- in its place is the job's own."`
	Command   []string `arg:"" optional:"" passthrough:"" help:"The command and its arguments."`
	List      bool     `help:"List your containers that run on this machine."`
	JSON      bool     `name:"json" help:"List them as JSON."`
}

// Run does not return when all is well: the process becomes the command. It
// stays in the caller's session, cgroup and working environment.
func (c *execCmd) Run(ctx context.Context, s *session) error {
	if c.List || c.JSON {
		return s.listRunning(c.JSON)
	}
	if command, ok := c.ownJob(s); ok {
		return notStarted{s.joinJob(ctx, s.env("PBS_JOBID"), func(*launcher.Running) ([]string, error) { return command, nil })}
	}
	if len(c.Command) > 0 && c.Command[0] == "--" {
		c.Command = c.Command[1:]
	}
	if c.Container == "" || len(c.Command) == 0 {
		return &fault.Error{
			Op: "exec", Blame: fault.User, Err: errors.New("no container or no command given"),
			Remedy: "usage: berth exec [flags] JOB[.STEP]|NAME COMMAND [ARG ...] (list containers: berth exec --list)",
		}
	}
	t, err := parseTarget(c.Container)
	if err != nil {
		return err
	}
	return c.run(ctx, s, t, func(*launcher.Running) ([]string, error) { return c.Command, nil },
		append([]string{"exec"}, c.flags()...), c.Command)
}

// ownJob is the command of a task that names no container, but writes -- in
// its place: within a job under PBS that is the job's own, as in
// mpirun berth exec -- COMMAND.
func (c *execCmd) ownJob(s *session) ([]string, bool) {
	i := slices.Index(s.args, "--")
	if s.env("PBS_JOBID") == "" || i < 0 || c.Container == "" || len(s.args)-i-1 != len(c.Command)+1 {
		return nil, false
	}
	return append([]string{c.Container}, c.Command...), true
}

// run joins what t means on this machine, or hands the same command line to
// the job's node by srun.
func (j *joining) run(ctx context.Context, s *session, t target, command func(*launcher.Running) ([]string, error), again, argv []string) error {
	if err := hideMemory(); err != nil {
		return err
	}
	if j.Node != "" {
		return j.throughSlurm(ctx, s, t, again, argv)
	}
	look := running(launcher.FindRunning)
	r, err := look.find(t)
	if errors.Is(err, errNotHere) && !j.Here && s.hasSlurm(t) {
		return j.throughSlurm(ctx, s, t, again, argv)
	}
	if errors.Is(err, errNotHere) && j.Wait {
		r, err = look.await(ctx, t, func(line string) { s.log.Info(line) })
	}
	if err != nil {
		return err
	}
	if argv, err = command(r); err != nil {
		return err
	}
	return j.become(s, r, argv)
}

// flags are the options for the same command on the job's node.
func (j *joining) flags() []string {
	args := []string{"--here"}
	if j.Wait {
		args = append(args, "--wait")
	}
	if j.Workdir != "" {
		args = append(args, "--workdir="+j.Workdir)
	}
	if len(j.Unshare) > 0 {
		args = append(args, "--unshare="+strings.Join(j.Unshare, ","))
	}
	for _, v := range j.Env {
		args = append(args, "--env="+v)
	}
	return args
}

// become turns the process into argv in the container r.
func (j *joining) become(s *session, r *launcher.Running, argv []string) error {
	tools, err := s.findTools()
	if err != nil {
		return err
	}
	if err := r.Require(j.Unshare); err != nil {
		return fault.Wrap("join container", nameOf(r), fault.User, "leave --unshare out, or start the container with it", err)
	}
	if err := j.moveTo(r); err != nil {
		return err
	}
	container, users, err := r.Open()
	if err != nil {
		return fault.Wrap("join container", nameOf(r), fault.User, "look whether it still runs: berth exec --list", err)
	}
	defer container.Close()
	defer users.Close()
	given, err := readVariables(nil, slices.Concat(r.Env, j.Env))
	if err != nil {
		return err
	}
	return container.Exec(tools.join, users, r.Remap, argv, given.over(s.withoutLogins()), given.names())
}

// moveTo lets the command start in another folder than the container's tasks.
func (j *joining) moveTo(r *launcher.Running) error {
	if j.Workdir == "" {
		return nil
	}
	m, err := wire.DecodeUpTo(r.Result, launcher.MaxResult)
	if err == nil {
		r.Result, err = m.Add("cwd", j.Workdir).EncodeUpTo(launcher.MaxResult)
	}
	return err
}
