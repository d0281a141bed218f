package e2e

import (
	"strings"
	"testing"
)

// byAccount is a policy on what Slurm says of jobs.
const byAccount = `
[policy]
default = "deny"
contact = "hpc@example.org"
[[policy.rule]]
name = "bio on gpu"
images = ["*"]
accounts = ["Bio"]
partitions = ["gpu"]
action = "allow"
[container]
`

// A job's account and partition are those that Slurm knows, however the job
// came to its image, and whatever its user puts into its environment.
func TestAccountsOfJobs(t *testing.T) {
	s := newSite(t, withConfig(byAccount), withConf("PartitionName=gpu Nodes=n[1-3] MaxTime=60 State=UP"))
	// What each form has in its environment; scripts of sbatch begin with it.
	const forged = "export SLURM_JOB_ACCOUNT=bio SLURM_JOB_PARTITION=gpu SPANK_SLURM_JOB_ACCOUNT=bio SPANK_SLURM_JOB_PARTITION=gpu " +
		"SLURM_SPANK_SLURM_JOB_ACCOUNT=bio SLURM_SPANK_SLURM_JOB_PARTITION=gpu; "
	const denied = "the site's policy: no rule allows it, and policy.default (/etc/berth/berth.toml) denies"
	of := "--container-image=" + tiny + " sh -c 'test -e /bin/busybox && echo ran'"
	inside := strings.ReplaceAll(of, "'", "\\\"")
	for _, tc := range []struct {
		name, script, says string // "" for what is allowed
	}{
		{"theirs", "srun -N2 -A bio -p gpu " + of, ""},
		{"theirs, in a step", "salloc -A bio -p gpu sh -c \"srun true; srun " + inside + "\"", ""},
		{"theirs, in an array", "sbatch -W --array=1-2 -A bio -p gpu -o /shared/array.%a --wrap \"srun " + of + "\" >/dev/null; cat /shared/array.*", ""},
		{"no account", forged + "srun -p gpu " + of, denied},
		{"another account", forged + "srun -A theo -p gpu " + of, denied},
		{"another partition", forged + "srun -A bio -p main " + of, denied},
		{"another account, in a step", "salloc -A theo -p gpu sh -c \"" + forged + "srun true; srun " + inside + "\"", denied},
		{"an account with the line of another", "salloc -p gpu -A $'x\\n'$(cat /shared/next)'|gpu|bio' sh -c \"srun true; srun " + inside + "\"", "want one line JOB|PARTITION|ACCOUNT"},
		{"exported", "srun -A theo -p gpu --export=ALL,SLURM_JOB_ACCOUNT=bio,SLURM_JOB_PARTITION=gpu " + of, denied},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := s.With(t)
			// A job before this one, so that it knows its number beforehand.
			s.MustRun(t.Context(), "ctl", "alice", "bash", "-c", "srun -p gpu bash -c 'echo $((SLURM_JOB_ID + 1)) >/shared/next'")
			r := s.Run(t.Context(), "ctl", "alice", "bash", "-c", "cd ~; "+tc.script)
			ran := times("^ran$", r.Stdout) > 0
			if ran != (tc.says == "") || !strings.Contains(r.Stderr, tc.says) || !ran && r.Code == 0 {
				t.Errorf("want %q: %v", tc.says, r)
			}
		})
	}
	s.clean(t)
}
