package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/launcher"
)

// A target is how a user names a running container.
type target struct {
	text string
	pid  int    // pid:N
	job  string // JOB, or JOB.STEP, as Slurm writes them
	step string
}

// jobPattern is a job of Slurm, one of an array or of a heterogeneous one,
// and maybe a step.
var jobPattern = regexp.MustCompile(`^([0-9]+(?:[_+][0-9]+)?)(?:\.([0-9]+|batch|interactive))?$`)

func parseTarget(text string) (target, error) {
	t := target{text: text}
	if number, ok := strings.CutPrefix(text, "pid:"); ok {
		pid, err := strconv.Atoi(number)
		if err != nil || pid < 1 {
			return t, &fault.Error{
				Op: "look for container", Arg: text, Blame: fault.User, Err: errors.New("not the number of a process"),
				Remedy: "berth exec --list shows what there is",
			}
		}
		t.pid = pid
		return t, nil
	}
	if m := jobPattern.FindStringSubmatch(text); m != nil {
		t.job, t.step = m[1], m[2]
	}
	return t, nil
}

// means says whether r is what the user asked for. What looks like a job may be
// a name, too.
func (t target) means(r *launcher.Running) bool {
	for _, pid := range r.PIDs {
		if pid == t.pid {
			return true
		}
	}
	return t.pid == 0 && (r.Name == t.text || r.Job == t.text || t.job != "" && r.Job == t.job && (t.step == "" || r.Step == t.step))
}

// running finds containers of the user's on this machine. Whoever knows of
// others that can be joined, as a scheduler's hooks may, has its place here.
type running func() ([]*launcher.Running, error)

// find returns the one container that t means, or an error that is
// errNotHere.
func (look running) find(t target) (*launcher.Running, error) {
	all, err := look()
	if err != nil {
		return nil, fault.Wrap("look for containers", "", fault.Bug, "", err)
	}
	var found []*launcher.Running
	for _, r := range all {
		if t.means(r) {
			found = append(found, r)
		}
	}
	switch len(found) {
	case 0:
		return nil, t.notHere(all)
	case 1:
		return found[0], nil
	}
	return nil, &fault.Error{
		Op: "look for container", Arg: t.text, Blame: fault.User, Err: fmt.Errorf("there are several: %s", names(found)),
		Remedy: "name one of them",
	}
}

// errNotHere is the cause where no container of this machine is meant.
var errNotHere = errors.New("no container of yours by that name runs here")

func (t target) notHere(all []*launcher.Running) error {
	err, remedy := errNotHere, "none of your containers runs on this machine"
	if t.job != "" {
		err = fmt.Errorf("%w, on %s", errNotHere, cmp.Or(hostname(), "this machine"))
	}
	if len(all) > 0 {
		remedy = "here run: " + names(all)
	}
	return &fault.Error{Op: "look for container", Arg: t.text, Blame: fault.User, Err: err, Remedy: remedy}
}

func hostname() string {
	name, _ := os.Hostname()
	return name
}

// names lists containers by what exec takes.
func names(all []*launcher.Running) string {
	var list []string
	for _, r := range all {
		list = append(list, nameOf(r))
	}
	return strings.Join(list, ", ")
}

func nameOf(r *launcher.Running) string {
	switch {
	case r.Name != "":
		return r.Name
	case r.Job != "" && r.Step != "":
		return r.Job + "." + r.Step
	case r.Job != "":
		return r.Job
	}
	return "pid:" + strconv.Itoa(r.PIDs[0])
}

// How often a container is looked for, and its absence told.
const (
	lookEvery = 100 * time.Millisecond
	tellEvery = 10 * time.Second
)

// await finds what t means, and waits for it if it does not run yet.
func (look running) await(ctx context.Context, t target, tell func(string)) (*launcher.Running, error) {
	every := time.NewTicker(lookEvery)
	defer every.Stop()
	told := time.Now()
	for {
		r, err := look.find(t)
		if !errors.Is(err, errNotHere) {
			return r, err
		}
		if time.Since(told) >= tellEvery {
			told = time.Now()
			tell("waiting for a container of " + t.text)
		}
		select {
		case <-every.C:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// A listedRunning is one running container as --json prints it.
type listedRunning struct {
	Name  string `json:"name"` // what exec takes
	Job   string `json:"job,omitempty"`
	Step  string `json:"step,omitempty"`
	Image string `json:"image,omitempty"`
	PIDs  []int  `json:"pids"`
}

// listRunning prints the containers that can be joined.
func (s *session) listRunning(asJSON bool) error {
	all, err := launcher.FindRunning()
	if err != nil {
		return err
	}
	if asJSON {
		listed := []listedRunning{}
		for _, r := range all {
			listed = append(listed, listedRunning{Name: nameOf(r), Job: r.Job, Step: r.Step, Image: r.Image, PIDs: r.PIDs})
		}
		return s.printJSON(listed)
	}
	t := tabwriter.NewWriter(s.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "CONTAINER\tIMAGE\tPROCESSES\tFIRST")
	for _, r := range all {
		fmt.Fprintf(t, "%s\t%s\t%d\t%d\n", nameOf(r), printable(r.Image), len(r.PIDs), r.PIDs[0])
	}
	return t.Flush()
}
