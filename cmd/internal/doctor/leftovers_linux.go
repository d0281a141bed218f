package doctor

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/berth-hpc/berth/launcher"
	"github.com/berth-hpc/berth/prolog/jobstate"
)

// checkLeftovers looks for what jobs that are gone have left on the node.
func checkLeftovers(ctx context.Context, n *Node) []Finding {
	if _, err := os.Stat(filepath.Join(n.RunDir, "jobs")); err != nil {
		return good("nothing was prepared since the boot")
	}
	jobs, err := knownJobs(ctx, n)
	if err != nil {
		return one(Warn, "the state in "+n.RunDir+" can't be read: "+oneLine(err), "look at it, and at the kernel log")
	}
	running, err := runningJobs(ctx)
	if err != nil {
		return one(Warn, fmt.Sprintf("%d jobs have state here; whether they run can't be told: %s", len(jobs), oneLine(err)), "try again when slurmctld answers: squeue")
	}
	jobs = slices.DeleteFunc(jobs, func(job string) bool { return running[job] })
	if len(jobs) == 0 {
		return good("no job that is gone has left anything")
	}
	return one(Warn, "jobs that are gone have state here, and keep images mounted: "+strings.Join(jobs, " "),
		fmt.Sprintf(`for j in %s; do printf 'job=%%s\0' $j | %s node cleanup; done`, strings.Join(jobs, " "), n.Command[0]))
}

// knownJobs are those with a folder or with pinned namespaces.
func knownJobs(ctx context.Context, n *Node) ([]string, error) {
	ids, err := jobstate.Jobs(n.RunDir)
	if err != nil {
		return nil, err
	}
	var jobs []string
	for _, id := range ids {
		jobs = append(jobs, string(id))
	}
	mounts, err := launcher.OpenMounts(ctx, n.RunDir)
	if err != nil {
		return nil, err
	}
	defer mounts.Close()
	pinned, err := mounts.PinnedJobs()
	jobs = append(jobs, pinned...)
	// PBS's are looked after when pbs_mom starts; squeue knows nothing of them.
	jobs = slices.DeleteFunc(jobs, func(job string) bool { return jobstate.JobID(job).IsPBS() })
	slices.Sort(jobs)
	return slices.Compact(jobs), err
}

// runningJobs asks Slurm for all jobs that have nodes.
func runningJobs(ctx context.Context) (map[string]bool, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, "squeue", "-h", "-a", "-o", "%A", "-t", "running,completing,suspended,configuring,stopped").Output()
	if err != nil {
		return nil, err
	}
	jobs := map[string]bool{}
	for _, id := range strings.Fields(string(out)) {
		jobs[id] = true
	}
	return jobs, nil
}
