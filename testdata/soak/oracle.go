package soak

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// An Outcome is what became of a job.
type Outcome struct {
	Submitted, Ended time.Time
	ID               string // "" where Slurm never had it
	State            string // Slurm's, as COMPLETED; "" without a job
	Exit             string // Slurm's CODE:SIGNAL
	Code             int    // of the user's srun or sbatch
	Output           string // all that the user can read
	Log              string // the lines of slurmctld and of its nodes' slurmd about it
}

// String is for whoever has to find out what went wrong.
func (o Outcome) String() string {
	return fmt.Sprintf("job %s: %s, exit code %s; the command's: %d; %s to %s\nprinted:\n%s\nlogs:\n%s",
		o.ID, o.State, o.Exit, o.Code, o.Submitted.Format(clock), o.Ended.Format(clock), o.Output, o.Log)
}

const clock = "15:04:05.000"

// A Happened is a fault that struck.
type Happened struct {
	Fault
	From, To time.Time // To is when it was mended
	Job      string    // name or number of the only job that it was about; "" where not known
}

// String is one line.
func (h Happened) String() string {
	return fmt.Sprintf("%s to %s %s %s", h.From.Format(clock), h.To.Format(clock), h.Fault, h.Job)
}

func list(happened []Happened) string {
	var b strings.Builder
	for _, h := range happened {
		fmt.Fprintln(&b, h)
	}
	return b.String()
}

// after is how long something may fail by a fault that is mended: who was told
// so waits, asks again, and gives up.
const after = 15 * time.Second

// touches says whether the fault can be why the job failed.
func (h Happened) touches(j Job, o Outcome) bool {
	if h.Job != "" && h.Job != j.Name && h.Job != o.ID {
		return false
	}
	if h.Node != "" && !slices.Contains(j.Nodes, h.Node) || h.Image != "" && h.Image != j.Image {
		return false
	}
	return o.Submitted.Before(h.To.Add(after)) && o.Ended.After(h.From)
}

// uid is whom a job's tasks see themselves as.
func (j Job) uid() int {
	if j.Remap {
		return 0
	}
	return 2001 + slices.Index(Users, j.User)
}

// Judge says how a job went: "ran", "cancelled", or by which fault it failed.
// The error is for all that must not be: that it ran elsewhere, half, as
// somebody else, ended with another code, or failed without a reason.
func Judge(j Job, o Outcome, faults []Happened) (how string, err error) {
	var near []Happened
	for _, h := range faults {
		if h.touches(j, o) {
			near = append(near, h)
		}
	}
	whole, err := proof(j, o)
	if err != nil {
		if i := slices.IndexFunc(near, func(h Happened) bool { return h.kind().OfImage }); i >= 0 {
			return near[i].Kind + ": wrong data", nil
		}
		return "", err
	}
	if whole && rightCode(j, o) {
		return "ran", nil
	}
	if claims(j, o) {
		return "", errors.New("it ended as if it had run")
	}
	if j.Cancel > 0 && o.State == "CANCELLED" {
		return "cancelled", nil
	}
	for _, h := range near {
		if h.kind().explains(o) {
			return h.Kind, nil
		}
	}
	var names []string
	for _, h := range near {
		names = append(names, h.Kind)
	}
	return "", fmt.Errorf("it failed, and none of these is known to be a reason: %q", names)
}

// proof compares what the tasks said with what they must say. whole is whether
// each did at its begin and at its end.
func proof(j Job, o Outcome) (whole bool, err error) {
	image := Images[j.Image]
	tasks := j.Tasks * len(j.Nodes)
	want := map[string]bool{}
	for rank := range tasks {
		for _, when := range []string{"begin", "end"} {
			want[image.Line(when, j.Name, j.uid(), rank)] = true
		}
	}
	said := map[string]int{}
	for _, m := range regexp.MustCompile(`(?m)^(begin|end) .*$`).FindAllString(o.Output, -1) {
		said[m]++
		if !want[m] {
			return false, fmt.Errorf("a task says %q", m)
		}
		if said[m] > 1 {
			return false, fmt.Errorf("a task says twice %q", m)
		}
	}
	if strings.Contains(o.Output, "not writable") {
		return false, errors.New("its container is not writable")
	}
	return len(said) == 2*tasks, nil
}

// rightCode says whether Slurm and the user's command have the job's code.
func rightCode(j Job, o Outcome) bool {
	state := "COMPLETED"
	if j.Code != 0 {
		state = "FAILED"
	}
	if j.Shape == Step && o.Code != j.Code {
		return false
	}
	return o.State == state && o.Exit == strconv.Itoa(j.Code)+":0"
}

// claims says whether the user takes it for a job that succeeded. Another code
// is the highest of all tasks', so it says nothing of each. (srun whose job was
// cancelled after a slurmstepd had died ends with 0; Slurm then says which.)
func claims(j Job, o Outcome) bool {
	if j.Shape == Step {
		return o.Code == 0 && o.State != "CANCELLED" && o.State != "NODE_FAIL"
	}
	return o.State == "COMPLETED"
}

func (h Happened) kind() Kind {
	return Kinds[slices.IndexFunc(Kinds, func(k Kind) bool { return k.Name == h.Kind })]
}

// explains says whether the user, or Slurm's log, has a reason that this kind
// of fault gives.
func (k Kind) explains(o Outcome) bool {
	return k.Says != nil && k.Says.MatchString(o.Output) || k.Slurm != nil && k.Slurm.MatchString(o.State+" "+o.Exit+"\n"+o.Log)
}
