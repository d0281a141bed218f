package soak

import (
	"strings"
	"testing"
	"time"
)

// TestJudge: what the oracle must not let pass, and what it must.
func TestJudge(t *testing.T) {
	begin := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	job := Job{Name: "1.2", User: "bob", Image: "red", Shape: Step, Nodes: []string{"n1", "n2"}, Tasks: 1}
	said := func(image string, uid int, when ...string) string {
		var b strings.Builder
		for rank := range 2 {
			for _, w := range when {
				b.WriteString(Images[image].Line(w, job.Name, uid, rank) + "\n")
			}
		}
		return b.String()
	}
	good := said("red", 2002, "begin", "end")
	half := said("red", 2002, "begin")
	ran := Outcome{Submitted: begin, Ended: begin.Add(5 * time.Second), ID: "17", State: "COMPLETED", Exit: "0:0", Output: good}
	failed := func(output string) Outcome {
		o := ran
		o.State, o.Exit, o.Code, o.Output = "FAILED", "1:0", 1, output
		return o
	}
	with := func(o Outcome, change func(*Outcome)) Outcome { change(&o); return o }
	fault := func(kind, node string, change ...func(*Happened)) []Happened {
		h := Happened{Fault: Fault{Kind: kind, Node: node}, From: begin.Add(time.Second), To: begin.Add(2 * time.Second)}
		for _, c := range change {
			c(&h)
		}
		return []Happened{h}
	}
	const helper = "berth: error: the container helper ended before the container was ready\n"
	of := func(image string) func(*Happened) { return func(h *Happened) { h.Image = image } }
	about := func(job string) func(*Happened) { return func(h *Happened) { h.Job = job } }
	three := job
	three.Code = 3
	cancelled := job
	cancelled.Cancel = time.Second

	for _, tc := range []struct {
		name   string
		job    Job
		o      Outcome
		faults []Happened
		how    string // "" for wrong
	}{
		{"ran", job, ran, nil, "ran"},
		{"ran although", job, ran, fault("kill helper", "n1"), "ran"},
		{"its code", three, with(failed(good), func(o *Outcome) { o.Exit, o.Code = "3:0", 3 }), nil, "ran"},
		{"another code", three, failed(good), nil, ""},
		{"no code", three, ran, nil, ""},
		{"the command says another code", three, with(failed(good), func(o *Outcome) { o.Exit, o.Code = "3:0", 0 }), nil, ""},
		{"another image", job, with(ran, func(o *Outcome) { o.Output = said("blue", 2002, "begin", "end") }), nil, ""},
		{"another image, with an excuse", job, failed(said("blue", 2002, "begin") + helper), fault("kill helper", "n1"), ""},
		{"another user", job, with(ran, func(o *Outcome) { o.Output = said("red", 2001, "begin", "end") }), nil, ""},
		{"wrong data", job, with(ran, func(o *Outcome) { o.Output = strings.Replace(good, "end 1.2 soak-red-1 ", "end 1.2 soak-red-1 0", 1) }), nil, ""},
		{"wrong data of a damaged image", job, with(ran, func(o *Outcome) { o.Output = strings.Replace(good, "end 1.2 soak-red-1 ", "end 1.2 soak-red-1 0", 1) }), fault("flip bits", "n1", of("red")), "flip bits: wrong data"},
		{"wrong data of an image that is not the damaged one", job, with(ran, func(o *Outcome) { o.Output = said("blue", 2002, "begin", "end") }), fault("flip bits", "n1", of("blue")), ""},
		{"twice", job, with(ran, func(o *Outcome) { o.Output = good + good }), nil, ""},
		{"half, and success", job, with(ran, func(o *Outcome) { o.Output = half }), fault("kill helper", "n1"), ""},
		{"not at all, and success", job, with(ran, func(o *Outcome) { o.Output = "" }), nil, ""},
		{"failed by a fault", job, failed(half + helper), fault("kill helper", "n1"), "kill helper"},
		{"failed without a fault", job, failed(half + helper), nil, ""},
		{"failed without a word", job, failed(half), fault("kill helper", "n1"), ""},
		{"failed by a fault elsewhere", job, failed(half + helper), fault("kill helper", "n3"), ""},
		{"failed by a fault of another kind", job, failed(half + helper), fault("registry busy", ""), ""},
		{"failed by a fault of another job", job, failed(half + helper), fault("kill helper", "n1", about("9")), ""},
		{"failed before the fault", job, with(failed(half+helper), func(o *Outcome) { o.Ended = begin }), fault("kill helper", "n1"), ""},
		{"failed long after it", job, with(failed(half+helper), func(o *Outcome) {
			o.Submitted, o.Ended = begin.Add(time.Minute), begin.Add(2*time.Minute)
		}), fault("kill helper", "n1"), ""},
		{"Slurm's word", job, with(failed(half), func(o *Outcome) { o.State = "NODE_FAIL" }), fault("reboot", "n2"), "reboot"},
		{"Slurm's word without a reboot", job, with(failed(half), func(o *Outcome) { o.State = "NODE_FAIL" }), nil, ""},
		{"forgotten", job, with(ran, func(o *Outcome) { o.State, o.Exit, o.Code = forgotten, "", 1 }), fault("kill slurmctld", ""), "kill slurmctld"},
		{"forgotten by itself", job, with(ran, func(o *Outcome) { o.State, o.Exit, o.Code = forgotten, "", 1 }), nil, ""},
		{"cancelled", cancelled, with(failed(half), func(o *Outcome) { o.State = "CANCELLED" }), nil, "cancelled"},
		{"cancelled by nobody", job, with(failed(half), func(o *Outcome) { o.State = "CANCELLED" }), nil, ""},
		{"never submitted", job, Outcome{Submitted: begin, Ended: begin.Add(time.Second), Code: 1}, nil, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			how, err := Judge(tc.job, tc.o, tc.faults)
			if how != tc.how || (err != nil) != (tc.how == "") {
				t.Errorf("%q, %v; want %q", how, err, tc.how)
			}
		})
	}
}
