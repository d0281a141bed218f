package prolog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/prolog/jobstate"
)

const (
	// schedulerTimeout bounds a command that asks the scheduler.
	schedulerTimeout = 10 * time.Second
	// reapAge is how old, at least, what a job has here must be. A job begins
	// before or after the scheduler was asked, and some name it late.
	reapAge = 5 * time.Minute
	// maxSchedulerOutput bounds what such a command may say, in bytes.
	maxSchedulerOutput = 16 << 20
)

// Reap is `berth node reap`, run by root: it ends the leases, mounts, pins and
// folders of jobs whose epilog never ran, and returns those jobs. Which jobs
// there are it asks cfg.LiveJobs, of PBS's jobs the folder cfg.PBSJobs. Of
// those whose scheduler does not answer as it should, nothing is reaped.
// Without a job here it does nothing.
func Reap(ctx context.Context, cfg Config) ([]jobstate.JobID, error) {
	return reap(ctx, cfg, reapAge, func(jobstate.JobID) bool { return true })
}

// ReapPBS is Reap for PBS's jobs alone, of any age: pbs_mom starts it before
// it begins a job.
func ReapPBS(ctx context.Context, cfg Config) ([]jobstate.JobID, error) {
	return reap(ctx, cfg, 0, jobstate.JobID.IsPBS)
}

func reap(ctx context.Context, cfg Config, age time.Duration, mine func(jobstate.JobID) bool) ([]jobstate.JobID, error) {
	if !known(cfg.RunDir) {
		return nil, nil
	}
	then := time.Now().Add(-age)
	candidates, err := oldJobs(cfg.RunDir, then)
	if err != nil {
		return nil, err
	}
	candidates = slices.DeleteFunc(candidates, func(job jobstate.JobID) bool { return !mine(job) })
	gone, err := withoutLive(ctx, cfg, candidates)
	var reaped []jobstate.JobID
	for _, job := range gone {
		// Looked at again: it may have begun once more since we asked.
		if old, err := isOld(cfg.RunDir, job, then); !old || err != nil {
			continue
		}
		if endErr := endJob(ctx, cfg, job); endErr != nil {
			err = errors.Join(err, fmt.Errorf("end job %s: %w", job, endErr))
			continue
		}
		reaped = append(reaped, job)
	}
	return reaped, err
}

// withoutLive leaves the jobs that their scheduler says are not on this node.
func withoutLive(ctx context.Context, cfg Config, jobs []jobstate.JobID) ([]jobstate.JobID, error) {
	var slurm, pbs []jobstate.JobID
	for _, job := range jobs {
		if job.IsPBS() {
			pbs = append(pbs, job)
		} else {
			slurm = append(slurm, job)
		}
	}
	var err error
	if len(cfg.LiveJobs) == 0 {
		slurm = nil
	}
	if len(slurm) > 0 {
		slurm, err = without(slurm, func() (map[jobstate.JobID]bool, error) { return liveJobs(ctx, cfg.LiveJobs) })
	}
	if cfg.PBSJobs == "" {
		pbs = nil
	}
	if len(pbs) > 0 {
		var perr error
		pbs, perr = without(pbs, func() (map[jobstate.JobID]bool, error) { return pbsJobs(cfg.PBSJobs) })
		err = errors.Join(err, perr)
	}
	return append(slurm, pbs...), err
}

// without leaves none of jobs if it can't be known which of them live.
func without(jobs []jobstate.JobID, live func() (map[jobstate.JobID]bool, error)) ([]jobstate.JobID, error) {
	lives, err := live()
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(jobs, func(job jobstate.JobID) bool { return lives[job] }), nil
}

// pbsJobs are those that pbs_mom has on this node: a file ID.JB each in
// PBS_HOME/mom_priv/jobs, on the first node of a job and on all others.
func pbsJobs(dir string) (map[jobstate.JobID]bool, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fault.Wrap("look for PBS's jobs in", dir, fault.Site,
			"have node.pbs_jobs in /etc/berth/berth.toml corrected, or set it to \"\" to turn this off", err)
	}
	live := map[jobstate.JobID]bool{}
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), ".JB"); ok {
			live[jobstate.JobID(name)] = true
		}
	}
	return live, nil
}

// oldJobs lists the jobs here in whose folder nothing happened since then, and
// for which nobody works now.
func oldJobs(runDir string, then time.Time) ([]jobstate.JobID, error) {
	jobs, err := jobstate.Jobs(runDir)
	var old []jobstate.JobID
	for _, job := range jobs {
		is, oerr := isOld(runDir, job, then)
		if is {
			old = append(old, job)
		}
		err = errors.Join(err, oerr)
	}
	return old, err
}

// isOld says whether nothing changed since then in the job's folder, its leases
// and its preparations, and nobody works for it. A job that was requeued has
// the same number again, and prepares in the same folder.
func isOld(runDir string, job jobstate.JobID, then time.Time) (bool, error) {
	dir := jobstate.JobDir(runDir, job)
	folders, err := jobstate.Folders(runDir, job)
	if err != nil {
		return false, err
	}
	paths, _ := filepath.Glob(filepath.Join(dir, "leases", "*"))
	for _, f := range folders {
		if f.Busy() {
			return false, nil
		}
		paths = append(paths, f.Path())
	}
	for _, path := range append(paths, dir) {
		info, err := os.Stat(path)
		if errors.Is(err, fs.ErrNotExist) {
			return false, nil // it just ends, or begins
		}
		if err != nil || !info.ModTime().Before(then) {
			return false, err
		}
	}
	return true, nil
}

// liveJobs asks the scheduler for its jobs on this node.
func liveJobs(ctx context.Context, command []string) (map[jobstate.JobID]bool, error) {
	host, err := os.Hostname()
	if err != nil {
		return nil, err
	}
	node, _, _ := strings.Cut(host, ".")
	text, err := askScheduler(ctx, command, "%n", node)
	if err != nil {
		return nil, errLive(command[0], err)
	}
	live, err := parseJobs(text)
	if err != nil {
		return nil, errLive(command[0], err)
	}
	return live, nil
}

// askScheduler runs a command of the site's, in which name stands for value,
// and returns what it prints.
func askScheduler(ctx context.Context, command []string, name, value string) (string, error) {
	args := make([]string, len(command))
	for i, arg := range command {
		args[i] = strings.ReplaceAll(arg, name, value)
	}
	ctx, cancel := context.WithTimeout(ctx, schedulerTimeout)
	defer cancel()
	var out, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env, cmd.Dir, cmd.WaitDelay = jobstate.Environment(), "/", time.Second
	cmd.Stdout = &limitedWriter{&out, maxSchedulerOutput}
	cmd.Stderr = &limitedWriter{&stderr, maxEvent}
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%w: %s", err, fault.Clean(strings.TrimSpace(stderr.String())))
	}
	if out.Len() == maxSchedulerOutput {
		return "", errors.New("it prints too much")
	}
	return out.String(), nil
}

// parseJobs reads one job id a line. Anything else makes the whole worthless.
func parseJobs(text string) (map[jobstate.JobID]bool, error) {
	live := map[jobstate.JobID]bool{}
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		n, err := parseNumber(line)
		if err != nil {
			return nil, fmt.Errorf("a job's id: %w", err)
		}
		live[jobstate.JobID(strconv.FormatUint(uint64(n), 10))] = true
	}
	return live, nil
}

func errLive(command string, err error) error {
	return fault.Wrap("ask the scheduler for its jobs by", command, fault.Site,
		"have node.live_jobs in /etc/berth/berth.toml corrected, or set it to [] to turn this off", err)
}
