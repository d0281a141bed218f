package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"time"

	"github.com/berth-hpc/berth/fault"
	"golang.org/x/sys/unix"
)

// askSlurm is how long squeue may take.
const askSlurm = 20 * time.Second

// hasSlurm says whether t may be a job of Slurm's that runs elsewhere.
func (s *session) hasSlurm(t target) bool {
	_, err := exec.LookPath("srun")
	return t.job != "" && err == nil
}

// A slurmJob is a job as squeue has it.
type slurmJob struct{ id, user, state, nodes, first string }

// throughSlurm becomes an srun that runs the same command on a node of the job,
// in its cgroup and by its resources.
func (j *joining) throughSlurm(ctx context.Context, s *session, t target, again, argv []string) error {
	job, err := s.askJob(ctx, t)
	if err != nil {
		return err
	}
	if err := job.check(s, t, cmp.Or(j.Node, job.first)); err != nil {
		return err
	}
	program, err := exec.LookPath("srun")
	if err != nil {
		return fault.Wrap("find", "srun", fault.Site, "log in to a machine with Slurm's commands", err)
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	args := []string{
		"srun", "--jobid=" + job.id, "--overlap", "--nodes=1", "--ntasks=1", "--nodelist=" + cmp.Or(j.Node, job.first),
		"--mpi=none", "--quiet", "--chdir=/",
	}
	if isTerminal(os.Stdin) && isTerminal(os.Stdout) {
		args = append(args, "--pty")
	}
	args = append(append(args, self), again...)
	args = append(args, job.target(t))
	if len(argv) > 0 {
		args = append(append(args, "--"), argv...)
	}
	return fault.Wrap("start", program, fault.Site, "", unix.Exec(program, args, s.outsideOfJobs()))
}

// target names the step of the very job, also of one in an array.
func (job slurmJob) target(t target) string {
	if t.step == "" {
		return job.id
	}
	return job.id + "." + t.step
}

// askJob asks Slurm for the one job that t means.
func (s *session) askJob(ctx context.Context, t target) (slurmJob, error) {
	ctx, cancel := context.WithTimeout(ctx, askSlurm)
	defer cancel()
	if t.job == "" {
		return slurmJob{}, &fault.Error{
			Op: "look for container", Arg: t.text, Blame: fault.User, Err: errors.New("--node is for jobs of Slurm"),
			Remedy: "name a job, or leave --node out",
		}
	}
	cmd := exec.CommandContext(ctx, "squeue", "-h", "--states=all", "-j", t.job, "-o", "%A|%u|%T|%N|%B")
	cmd.Env = s.outsideOfJobs()
	out, err := cmd.Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return slurmJob{}, fault.Wrap("look for job", t.job, fault.User, "list yours: squeue --me", errors.New(lastLine(string(exit.Stderr))))
	}
	if err != nil {
		return slurmJob{}, fault.Wrap("look for job", t.job, fault.Site, "see whether squeue works here", err)
	}
	return chooseJob(t, string(out))
}

// chooseJob reads squeue's lines: one, or one for each part of an array or of a
// heterogeneous job, of which the very number counts.
func chooseJob(t target, lines string) (slurmJob, error) {
	var jobs []slurmJob
	var ids []string
	for line := range strings.Lines(lines) {
		f := strings.SplitN(strings.TrimSpace(line), "|", 5)
		if len(f) != 5 {
			continue
		}
		job := slurmJob{f[0], f[1], f[2], f[3], f[4]}
		if job.id == t.job {
			return job, nil
		}
		jobs, ids = append(jobs, job), append(ids, f[0])
	}
	switch len(jobs) {
	case 0:
		return slurmJob{}, fault.Wrap("look for job", t.job, fault.User, "list yours: squeue --me", errors.New("no such job in Slurm"))
	case 1:
		return jobs[0], nil
	}
	return slurmJob{}, fault.Wrap("look for job", t.job, fault.User, "name one of them", fmt.Errorf("there are several: %s", strings.Join(ids, ", ")))
}

// check says why nothing can run in the job on that node.
func (job slurmJob) check(s *session, t target, node string) error {
	wrong := func(remedy, format string, args ...any) error {
		return &fault.Error{Op: "join job", Arg: t.job, Blame: fault.User, Err: fmt.Errorf(format, args...), Remedy: remedy}
	}
	switch {
	case job.user != s.user.name:
		return wrong("list yours: squeue --me", "it is %s's, not yours", job.user)
	case job.state != "RUNNING":
		return wrong("wait until it runs: squeue -j "+t.job, "it does not run: it is %s", job.state)
	case node == hostname():
		return wrong("see what runs here: berth exec --list", "it runs here, but in no container")
	}
	return nil
}

// outsideOfJobs is the environment without what would make srun part of another
// job, or give it a container.
func (s *session) outsideOfJobs() []string {
	var rest []string
	for _, v := range s.withoutLogins() {
		if !jobVariable.MatchString(v) || strings.HasPrefix(v, "SLURM_CONF=") {
			rest = append(rest, v)
		}
	}
	return rest
}

var jobVariable = regexp.MustCompile(`^(SLURM_|SLURMD_|SRUN_|_SLURM_SPANK_|BERTH_CONTAINER_|PYXIS_CONTAINER_)`)
