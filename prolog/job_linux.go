package prolog

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/policy"
	"github.com/berth-hpc/berth/prolog/jobstate"
)

// Which account and partition a job has, slurmd tells its prolog by variables
// of which the job's own environment is no part (Slurm 22.05). Those of a step
// come from its user. So the prolog's are written down for the job's steps,
//
//	jobs/<job>/job.json
//
// and where there are none, because the job itself wants no image or Slurm is
// older, the scheduler is asked, once for a job and node.

// writeJob writes down what is known of req's job, whose folder exists.
func writeJob(runDir string, req jobstate.Request, job policy.Job) error {
	return jobstate.SetFacts(runDir, req.Job, jobstate.Facts{UID: req.UID, Job: job})
}

// askForJob asks the scheduler. An error means that nobody knows: then nothing
// may be allowed that depends on it.
func (w *worker) askForJob(ctx context.Context) (*policy.Job, error) {
	id := string(w.req.Job)
	if len(w.cfg.JobFacts) == 0 {
		return nil, errJobUnknown(id, errors.New("node.job_facts names no command that does"))
	}
	text, err := askScheduler(ctx, w.cfg.JobFacts, "%j", id)
	var job *policy.Job
	if err == nil {
		job, err = parseJobFacts(text, id)
	}
	if err != nil {
		return nil, errJobUnknown(id, fmt.Errorf("%s: %w", w.cfg.JobFacts[0], err))
	}
	if err := writeJob(w.cfg.RunDir, w.req, *job); err != nil {
		w.log.WithError(err).Warn("write down the job's account") // then it is asked for again
	}
	return job, nil
}

// parseJobFacts finds the line JOB|PARTITION|ACCOUNT of the job. Those of an
// array have several lines. Where Slurm lets users name any account, one may
// hold line feeds and so look like a line: of two for the job neither counts.
func parseJobFacts(text, id string) (*policy.Job, error) {
	var found *policy.Job
	for line := range strings.Lines(text) {
		of, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "|")
		if of != id {
			continue
		}
		partition, account, ok := strings.Cut(rest, "|")
		if !ok || partition == "" || found != nil {
			return nil, errors.New("want one line JOB|PARTITION|ACCOUNT for the job")
		}
		if account == "(null)" { // squeue's word for none
			account = ""
		}
		found = &policy.Job{Account: account, Partition: partition}
	}
	if found == nil {
		return nil, errors.New("it has no line for the job")
	}
	return found, nil
}

func errJobUnknown(id string, err error) error {
	return fault.Wrap("find out the account and partition of job", id, fault.Site,
		"submit it again later, or with the image given to sbatch or salloc; your administrator finds the command in node.job_facts of /etc/berth/berth.toml", err)
}
