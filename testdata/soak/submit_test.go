package soak

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/berth-hpc/berth/testdata/cluster"
)

// options are those of a job for sbatch or srun.
func (j Job) options() string {
	o := fmt.Sprintf("-J %s -N%d -w %s --ntasks-per-node=%d", j.Name, len(j.Nodes), strings.Join(j.Nodes, ","), j.Tasks)
	return o
}

// container are the options of a job's container, and its command.
func (j Job) container() string {
	o := " --container-image=" + Images[j.Image].Reference()
	if j.Writable {
		o += " --container-writable"
	}
	if j.Remap {
		o += " --container-remap-root"
	}
	return o
}

func (j Job) command() string {
	how := "readonly"
	if j.Writable {
		how = "writable"
	}
	return fmt.Sprintf("/prove %s %.2f %d %s", j.Name, j.Sleeps.Seconds(), j.Code, how)
}

func (j Job) output() string { return "/shared/" + j.Name + ".out" }

// script is what the job's user types on the submit host.
func (j Job) script() string {
	batch := "sbatch --parsable --no-requeue -o " + j.output() + " " + j.options()
	switch j.Shape {
	case Batch:
		return batch + j.container() + " --wrap 'exec " + j.command() + "'"
	case Steps:
		return batch + " --wrap 'exec srun" + j.container() + " " + j.command() + "'"
	default:
		return "srun " + j.options() + j.container() + " " + j.command()
	}
}

// submit starts a job and, for those that wait for it, waits.
func (s *soak) submit(j Job) Outcome {
	o := Outcome{Submitted: time.Now()}
	done := make(chan struct{})
	if j.Cancel > 0 {
		go func() {
			select {
			case <-time.After(j.Cancel):
				s.Run(s.t.Context(), "ctl", j.User, "scancel", "-n", j.Name)
			case <-done:
			}
		}()
	}
	r := s.Do(s.t.Context(), cluster.Command{Machine: "ctl", User: j.User, Args: []string{"sh", "-c", j.script()}, Timeout: jobLimit})
	if j.Shape == Step {
		close(done)
	}
	o.Code, o.Output, o.Ended = r.Code, r.Stdout+r.Stderr, time.Now()
	return o
}

// jobLimit is how long a job of a few seconds may take with all that happens
// to it. One that takes longer hangs.
const jobLimit = 90 * time.Second

// prologLimit is after what time a prolog will not end any more; Berth's
// returns after 2 s.
const prologLimit = 20 * time.Second

// submitted is what sbatch prints of a job that Slurm takes.
var submitted = regexp.MustCompile(`^[0-9]+`)

var endStates = regexp.MustCompile(`^(COMPLETED|FAILED|CANCELLED|TIMEOUT|NODE_FAIL|OUT_OF_MEMORY|BOOT_FAIL|DEADLINE|PREEMPTED)$`)

// jobs asks Slurm for all jobs, by name; nil while slurmctld does not answer.
func (s *soak) jobs() map[string]map[string]string {
	r := s.Run(s.t.Context(), "ctl", "root", "scontrol", "-o", "show", "job")
	if r.Code != 0 {
		return nil
	}
	jobs := map[string]map[string]string{}
	for line := range strings.Lines(r.Stdout) {
		fields := map[string]string{}
		for _, word := range strings.Fields(line) {
			if key, value, ok := strings.Cut(word, "="); ok && fields[key] == "" {
				fields[key] = value
			}
		}
		jobs[fields["JobName"]] = fields
	}
	return jobs
}

// settle fills in what Slurm says of jobs once none of them runs. A slurmd that
// is killed in a job's prolog does not tell slurmctld so when it is back, which
// waits: the job's user cancels it. One that is killed while it ends a job
// does not, either: the admin sets its node down and up again.
func (s *soak) settle(jobs []Job, outcomes []Outcome, happened []Happened) {
	begin := time.Now()
	deadline := begin.Add(jobLimit)
	open := map[int]bool{}
	for i := range jobs {
		open[i] = true
	}
	for len(open) > 0 && time.Now().Before(deadline) {
		s.wait(200 * time.Millisecond)
		now := s.jobs()
		if now == nil {
			continue
		}
		for i := range open {
			fields, known := now[jobs[i].Name]
			o := &outcomes[i]
			if known && !endStates.MatchString(fields["JobState"]) {
				if fields["Reason"] == "Prolog" && time.Since(begin) > prologLimit && o.Log == "" {
					s.Run(s.t.Context(), "ctl", jobs[i].User, "scancel", fields["JobId"])
					o.Log = inProlog + "\n"
				}
				if fields["JobState"] == "COMPLETING" && time.Since(begin) > prologLimit {
					s.finish(jobs[i], happened)
				}
				continue
			}
			delete(open, i)
			o.ID, o.State, o.Exit = fields["JobId"], fields["JobState"], fields["ExitCode"]
			if m := submitted.FindString(o.Output); !known && m != "" {
				o.ID, o.State = m, forgotten
			}
			if jobs[i].Shape != Step {
				o.Ended = time.Now()
			}
		}
	}
	for i := range open {
		s.t.Errorf("job %s does not end: %v", jobs[i].Name, s.jobs()[jobs[i].Name])
		s.Run(s.t.Context(), "ctl", "root", "scancel", "-n", jobs[i].Name)
	}
	for i := range jobs {
		s.read(jobs[i], &outcomes[i])
	}
}

// finish ends jobs on nodes whose slurmd was killed.
func (s *soak) finish(j Job, happened []Happened) {
	for _, h := range happened {
		if h.Kind == "kill slurmd" && slices.Contains(j.Nodes, h.Node) {
			s.tally["completing until the node was set down"]++
			s.slurm("update", "nodename="+h.Node, "state=down", "reason=completing")
			s.slurm("update", "nodename="+h.Node, "state=resume")
		}
	}
}

// read adds what the job printed, and what Slurm's logs have on it.
func (s *soak) read(j Job, o *Outcome) {
	if j.Shape != Step {
		text, err := os.ReadFile(filepath.Join(s.Dir, j.output()))
		if err == nil {
			o.Output += string(text)
		}
	}
	if o.ID == "" {
		return
	}
	about := regexp.MustCompile(`(?i)\b(jobid=|job[ _]|stepid=|\[)` + o.ID + `\b`)
	for _, m := range append([]string{"ctl"}, j.Nodes...) {
		name := "slurmd"
		if m == "ctl" {
			name = "slurmctld"
		}
		text, _ := os.ReadFile(filepath.Join(s.Dir, "machines", m, "root/var/log/slurm", name+".log"))
		for line := range strings.Lines(string(text)) {
			if about.MatchString(line) && !strings.Contains(line, "debug:") {
				o.Log += m + " " + line
			}
		}
	}
}
