package soak

import "regexp"

// A Kind is one of the things that go wrong: what a job that meets it may end
// with, and no other way. A job that no fault met has to run.
type Kind struct {
	Name    string
	OfNode  bool
	OfImage bool
	// Only is the node whose settings make what it is about.
	Only string
	// Pulls says that it is about a pull: what the node has is removed before.
	Pulls bool
	// Weather is what the registry does, of server.Faults.
	Weather string
	// Kills is what the command line of its victim begins with, after the
	// folder of the program.
	Kills *regexp.Regexp
	// Says is what a job that failed by it may print.
	Says *regexp.Regexp
	// Slurm is what Slurm may have on a job that failed by it: a first line with
	// state and exit code, then its log's lines about the job.
	Slurm *regexp.Regexp
	// Orphans says that the node's epilogs may not run, so that berth node
	// reap has to.
	Orphans bool
	// Garbage says that work folders may stay until the store is next used.
	Garbage bool
}

func re(text string) *regexp.Regexp { return regexp.MustCompile(`(?m)` + text) }

// forgotten is in place of a state where Slurm took a job and knows it no more:
// slurmctld writes what it was told seconds later, and forgets it when killed.
const forgotten = "FORGOTTEN"

// inProlog is in place of a line of Slurm's log where a job was cancelled whose
// prolog did not come to its end.
const inProlog = "cancelled in its prolog"

// What the plugin says when a step's helper was killed.
const helperEnded = `^berth: error: the container helper (ended before|does not take the request)`

// What programs say whose file the kernel cannot read any more.
const readFails = `(?i)(bus error|segmentation fault|illegal instruction|trace/breakpoint|input/output error|exec format error|i/o error|command not found|no such file|applet not found|cannot execute)`

// How Slurm says that a signal of that ended a task: ILL, TRAP, BUS, SEGV.
const readKills = `^FAILED (0:(4|5|7|11)|(132|133|135|139):0)$`

// What users read of a registry in bad weather: of a pull, of the look for
// which image a tag stands for, and of that having failed at submission.
func registryFails(cause string) *regexp.Regexp {
	return re(`^berth: error: (pull|resolve) .*` + cause + `|^berth: error: start on several nodes .*could not be asked`)
}

// Kinds are all there are.
var Kinds = []Kind{
	{Name: "kill slurmd", OfNode: true, Kills: re(`^slurmd$`), Orphans: true, Slurm: re(`(?s)^CANCELLED .*\n` + inProlog), Says: re(`^srun: error: Task launch for StepId=\S+ failed on node `)},
	{Name: "kill slurmctld", Kills: re(`^slurmctld( -c)?$`), Orphans: true, Slurm: re(`^` + forgotten + `|(?s)^CANCELLED .*Purged files for defunct batch`), Says: re(`^(sbatch|srun): error: .*(Unable to contact slurm controller|Zero Bytes|Connection refused|timed out)`)},
	{Name: "kill munged", Kills: re(`^munged `), Orphans: true, Says: re(`^(sbatch|srun): error: .*([Mm]unge|uthentication)`)},
	{Name: "kill slurmstepd", OfNode: true, Kills: re(`^slurmstepd: \[[0-9]+\.(0|batch)`), Orphans: true, Slurm: re(`^CANCELLED `), Says: re(`^srun: (Job step aborted|error: Timed out waiting for job step)`)},
	{Name: "kill worker", OfNode: true, Pulls: true, Kills: re(`^berth node worker`), Garbage: true, Says: re(`^berth: error: .*: the process that prepares it was killed`)},
	{Name: "kill fetcher", OfNode: true, Pulls: true, Kills: re(`^berth node fetch`), Garbage: true, Says: re(`^berth: error: .*: the fetcher ended without an answer: signal: killed`)},
	{Name: "kill converter", OfNode: true, Pulls: true, Kills: re(`^berth node convert`), Garbage: true, Says: re(`^berth: error: .*(signal: killed|broken pipe)`)},
	{Name: "kill helper", OfNode: true, Kills: re(`^berth-create step`), Says: re(helperEnded)},
	{Name: "kill builder", OfNode: true, Kills: re(`^berth-create (inside|userns|init)`), Says: re(`^berth: error: .*(signal: killed|unexpected EOF|ended early)`)},
	{Name: "kill janitor", OfNode: true, Only: "n2", Kills: re(`^berth-create janitor`)},
	{Name: "kill image server", OfNode: true, Only: "n1", Kills: re(`^squashfuse_ll `), Says: re(`(?i)(transport endpoint is not connected|socket not connected|software caused connection abort|bus error|input/output error)`)},
	{Name: "kill task", OfNode: true, Kills: re(`^sh /prove `), Says: re(`^srun: error: n[0-9]: tasks? [0-9,-]+: Killed`), Slurm: re(`^(FAILED|CANCELLED) .*(0:9|137:0)$`)},
	{Name: "fill disk", OfNode: true, Garbage: true, Says: re(`^berth: error: (make room in /var/lib/berth: .* are needed|pull .*no space left on device)`)},
	{Name: "flip bits", OfNode: true, OfImage: true, Says: re(readFails), Slurm: re(readKills)},
	{Name: "truncate image", OfNode: true, OfImage: true, Says: re(readFails), Slurm: re(readKills)},
	{Name: "spoil record", OfNode: true, OfImage: true},
	{Name: "reboot", OfNode: true, Orphans: true, Garbage: true, Slurm: re(`^NODE_FAIL `)},
	{Name: "remove images", OfNode: true},
	{Name: "registry cut", Weather: cut, Garbage: true, Says: registryFails(`(EOF|reset)`)},
	{Name: "registry silent", Weather: "any.silent", Garbage: true, Says: registryFails(`(timeout awaiting response headers|context deadline exceeded)`)},
	{Name: "registry busy", Weather: "any.503", Garbage: true, Says: registryFails(`503 Service Unavailable`)},
	{Name: "registry slow", Weather: "layer.slow.ms2000", Garbage: true},
	{Name: "layers break off", Weather: "layer.cut", Garbage: true, Says: registryFails(`sent [0-9]+ of [0-9]+ bytes: unexpected EOF`)},
	{Name: "layers crawl", Weather: "layer.trickle.ms20", Garbage: true, Says: registryFails(`data arrived too slowly`)},
	{Name: "layers stand still", Weather: "layer.stall", Garbage: true, Says: registryFails(`no data arrived for too long`)},
	{Name: "layers are wrong", Weather: "layer.flip", Garbage: true, Says: registryFails(`verify layer .*: got sha256:`)},
}
