package main

import (
	"strings"
	"testing"

	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/launcher"
)

func runs(name, job, step string, pids ...int) *launcher.Running {
	return &launcher.Running{Marker: launcher.Marker{Label: launcher.Label{Name: name, Job: job, Step: step}}, PIDs: pids}
}

func TestFindRunning(t *testing.T) {
	all := []*launcher.Running{
		runs("", "17", "batch", 100), runs("", "17", "0", 101, 102), runs("", "18", "batch", 103), runs("mine", "", "", 104),
		runs("", "", "", 105), runs("19", "", "", 106),
	}
	look := running(func() ([]*launcher.Running, error) { return all, nil })
	for text, want := range map[string]string{
		"17":        "there are several: 17.batch, 17.0",
		"17.batch":  "17.batch",
		"17.0":      "17.0",
		"18":        "18.batch",
		"18.0":      "no container of yours by that name runs here, on ",
		"mine":      "mine",
		"19":        "19",
		"pid:102":   "17.0",
		"pid:105":   "pid:105",
		"pid:999":   "no container of yours",
		"pid:0":     "not the number of a process",
		"17.extern": "no container of yours",
		"18_3":      "no container of yours",
	} {
		got := ""
		target, err := parseTarget(text)
		if err == nil {
			var r *launcher.Running
			if r, err = look.find(target); err == nil {
				got = nameOf(r)
			}
		}
		if err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, want) || (err == nil) != (got == want) {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
}

// Without a name, a shell is for the only container that there is.
func TestOnlyContainer(t *testing.T) {
	for _, tc := range []struct {
		all          []*launcher.Running
		want, remedy string
	}{
		{nil, "", "none of your containers runs on this machine"},
		{[]*launcher.Running{runs("mine", "", "", 7)}, "mine", ""},
		{[]*launcher.Running{runs("mine", "", "", 7), runs("", "", "", 8)}, "", "name one of them"},
	} {
		target, err := (&shellCmd{}).target(func() ([]*launcher.Running, error) { return tc.all, nil })
		if target.text != tc.want || fault.Remedy(err) != tc.remedy {
			t.Errorf("%d containers: %+v, %v", len(tc.all), target, err)
		}
	}
}

// Of squeue's lines the job's own counts.
func TestChooseJob(t *testing.T) {
	const het = "20|alice|RUNNING|n1|n1\n21|alice|RUNNING|n2|n2\n"
	for _, tc := range []struct{ job, lines, want string }{
		{"20", het, "20"},
		{"20+1", "21|alice|RUNNING|n2|n2\n", "21"},
		{"30", "31|alice|RUNNING|n1|n1\n32|alice|PENDING||\n", "look for job 30: there are several: 31, 32"},
		{"40", "", "look for job 40: no such job in Slurm"},
		{"40", "nonsense\n", "look for job 40: no such job in Slurm"},
	} {
		job, err := chooseJob(target{job: tc.job}, tc.lines)
		if err != nil {
			job.id = err.Error()
		}
		if job.id != tc.want {
			t.Errorf("%s: %q, want %q", tc.job, job.id, tc.want)
		}
	}
}
