package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/berth-hpc/berth/cmd/internal/config"
	"github.com/berth-hpc/berth/cmd/internal/nodelog"
	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/imagecache/store"
	"github.com/berth-hpc/berth/launcher"
	"github.com/berth-hpc/berth/launcher/step"
	"github.com/berth-hpc/berth/launcher/wire"
	"github.com/berth-hpc/berth/prolog/jobstate"
	"github.com/sirupsen/logrus"
)

// runJob is `berth-create job`: root, started by PBS's hook with a fixed
// environment in a session of its own, with the request on standard input
// (package wire's format). It makes the container that all tasks of the job
// share on this node, and leaves a process of the user's in it. As soon as it
// is recorded who asked for what, it prints a line and goes on without the
// hook; what becomes of it is in the record, which the job's tasks wait for.
func runJob(ctx context.Context, in io.Reader, out *os.File) error {
	j, err := readJob(in)
	if err != nil {
		return err
	}
	cfg, err := config.Load(config.Site())
	runDir := "/run/berth"
	if err == nil {
		runDir = cfg.Node.RunDir
	}
	if rerr := j.begin(ctx, runDir); rerr != nil {
		return rerr
	}
	fmt.Fprintln(out, "recorded")
	out.Close() // the hook waits for its end, too
	logger := openLog(runDir)
	if err == nil {
		nodelog.System().Attach(logger, cfg.Log.To)
	}
	log := logger.WithFields(logrus.Fields{"job": j.id, "uid": j.request.User.UID})
	if err == nil {
		err = j.make(ctx, cfg)
	}
	if err != nil {
		log.WithError(err).Error("no container")
		return j.common.Set(&jobstate.Record{Mode: j.mode, Failure: fault.NewMessage(err)})
	}
	log.WithField("image", fault.Clean(j.request.Image)).Info("container ready")
	return nil
}

// A job is one request.
type job struct {
	id      jobstate.JobID
	mode    string
	pbsExec string
	account string
	queue   string
	request *step.Request
	paths   launcher.Job
	common  *jobstate.Common
}

func readJob(in io.Reader) (*job, error) {
	data, err := io.ReadAll(io.LimitReader(in, wire.MaxMessage+1))
	if err != nil {
		return nil, fmt.Errorf("read request: %w", err)
	}
	m, err := wire.Decode(data)
	if err != nil {
		return nil, err
	}
	return parseJob(m)
}

// parseJob refuses root: no job of root's needs a container, and whoever gets
// a hook to name another user must not get that one.
func parseJob(m wire.Message) (*job, error) {
	id, err := jobstate.ParseJobID(m.Get("job"))
	if err != nil {
		return nil, fmt.Errorf("request: job: %w", err)
	}
	for _, key := range []string{"job", "uid", "gid"} {
		if n := len(m.All(key)); n != 1 {
			return nil, fmt.Errorf("request: %d values for %s", n, key)
		}
	}
	req, err := step.ParseWhole(m)
	if err != nil {
		return nil, err
	}
	if req.User.UID == 0 || req.User.GID == 0 {
		return nil, errors.New("request: jobs of root get no container")
	}
	mode := m.Get("mode")
	if mode == "" {
		mode = "job"
	}
	return &job{
		id: id, mode: mode, pbsExec: m.Get("pbs_exec"), request: req,
		account: m.Get("account"), queue: m.Get("queue"),
		paths: launcher.Job{Dir: m.Get("dir"), TmpDir: m.Get("tmpdir"), Visible: m.All("visible")},
	}, nil
}

// begin records the request before PBS goes on to start the job's tasks.
func (j *job) begin(ctx context.Context, runDir string) error {
	// The run folder's own mount comes first: it would cover the job's folder.
	mounts, err := launcher.OpenMounts(ctx, runDir)
	if err != nil {
		return err
	}
	mounts.Close()
	if j.common, err = jobstate.BeginCommon(runDir, j.id, uint32(j.request.User.UID)); err != nil {
		return err
	}
	self, err := processOf(os.Getpid())
	if err != nil {
		return err
	}
	return errors.Join(j.common.SetMaker(self), j.progress("the node begins"))
}

func processOf(pid int) (jobstate.Worker, error) {
	start, err := store.ProcessStart(pid)
	return jobstate.Worker{PID: pid, Start: start}, err
}

func (j *job) progress(line string) error {
	return j.common.Set(&jobstate.Record{Mode: j.mode, Progress: fault.Clean(line)})
}

func (j *job) make(ctx context.Context, cfg *config.Config) error {
	set := settings(cfg)
	n := &node{cfg: cfg, berth: berthPath(), job: j.id, account: j.account, queue: j.queue}
	container, users, err := step.Make(ctx, j.request, j.paths, n, set,
		func(line string) { _ = j.progress(line) }) // the next line says the same better
	if err != nil {
		return err
	}
	defer container.Close()
	defer users.Close()
	return fault.Wrap("keep the container", "", fault.Bug, "",
		container.Hold(ctx, beside("berth-join"), users, set.Remap, j.request.User, j.ready))
}

// ready is called with the process that keeps the container.
func (j *job) ready(pid int) error {
	holder, err := processOf(pid)
	if err != nil {
		return err
	}
	if err := j.common.SetHolder(holder); err != nil {
		return err
	}
	return j.common.Set(&jobstate.Record{Mode: j.mode, PID: pid, PBSExec: j.pbsExec, Workdir: j.request.Workdir != ""})
}
