package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/prolog/jobstate"
	"github.com/berth-hpc/berth/prolog/records"
)

// A jobArg is how commands about what was take a job.
type jobArg struct {
	Job string `arg:"" name:"job[.step]" help:"The job, as Slurm (12, 12.0, 12.batch) or PBS names it."`
}

// parse returns the job and the step; "" for all steps.
func (a jobArg) parse() (jobstate.JobID, string, error) {
	job, step := a.Job, ""
	if m := jobPattern.FindStringSubmatch(a.Job); m != nil {
		job, step = m[1], m[2]
	}
	id, err := jobstate.ParseJobID(job)
	if err != nil {
		return "", "", &fault.Error{
			Op: "look for the job", Arg: a.Job, Blame: fault.User, Err: err,
			Remedy: "name it as the scheduler does: squeue and sacct show a part of an array as 12_3, and its own number by --format=JobIDRaw",
		}
	}
	return id, step, nil
}

// recordCmd shows records of steps.
type recordCmd struct {
	jobArg
	JSON bool `name:"json" help:"Print everything as JSON."`
}

// Run prints each step's record.
func (c *recordCmd) Run(s *session) error {
	all, err := s.records(c.jobArg)
	if err != nil {
		return err
	}
	if c.JSON {
		return s.printJSON(all)
	}
	for i := range all {
		if i > 0 {
			fmt.Fprintln(s.stdout)
		}
		if err := printRecord(s.stdout, &all[i]); err != nil {
			return err
		}
	}
	return nil
}

// records are those of a job on this node that the caller may read: their own,
// or for root everybody's.
func (s *session) records(a jobArg) ([]records.Record, error) {
	id, step, err := a.parse()
	if err != nil {
		return nil, err
	}
	cfg, err := s.settings()
	if err != nil {
		return nil, err
	}
	dir := records.Dir(cfg.Store.Dir)
	var all []records.Record
	if s.user.uid == 0 {
		all, err = records.ReadAll(dir, id)
	} else {
		all, err = records.Read(dir, id, uint32(s.user.uid))
	}
	if step != "" {
		all = slices.DeleteFunc(all, func(r records.Record) bool { return r.Step != step })
	}
	if err == nil && len(all) == 0 {
		err = fs.ErrNotExist
	}
	return all, errRecords(a.Job, cfg.Store.Dir, err)
}

func errRecords(job, dir string, err error) error {
	if err == nil {
		return nil
	}
	f := &fault.Error{Op: "read the record of job", Arg: job, Blame: fault.User, Err: err}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		f.Err = fmt.Errorf("%s has none of a job of yours with that number", orDash(hostname()))
		f.Remedy = "run this on a node where the job ran; it is there from the moment in which a container was ready or failed, for as long as records.keep says"
	case errors.Is(err, fs.ErrPermission):
		f.Blame = fault.Site
		f.Remedy = "the file system of " + dir + " has no access control lists, so only root can read it"
	default:
		f.Blame, f.Remedy = fault.Site, "look at the folder records below "+dir
	}
	return f
}

func printRecord(out io.Writer, r *records.Record) error {
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	row := func(key, format string, a ...any) {
		fmt.Fprintf(t, "%s:\t%s\n", key, printable(fmt.Sprintf(format, a...)))
	}
	some := func(key, value string) {
		if value != "" {
			row(key, "%s", value)
		}
	}
	row("container", "%s on %s, uid %d, %s", stepOf(r), r.Node, r.UID, r.Time.Local().Format(time.DateTime))
	some("account", strings.Trim(r.Account+", "+r.Partition, ", "))
	row("image", "%s", orDash(r.Asked))
	some("digest", r.Digest)
	some("from", fromWhere(r.Image))
	some("verdicts", verdicts(r.Image))
	some("name", r.Name)
	some("options", wantedText(r.Wanted))
	some("times", times(r))
	if r.Failure != nil {
		row("failed", "%s", r.Failure.Text)
		some("remedy", r.Failure.Remedy)
	}
	row("versions", "berth %s, Linux %s%s", r.Versions.Berth, r.Versions.Kernel, prefixed(", Slurm ", r.Versions.Slurm))
	if r.Said != nil {
		for _, m := range r.Said.Mounts {
			row("mount (says the user's process)", "%s", m)
		}
		for _, d := range r.Said.Devices {
			row("device (says the user's process)", "%s", d)
		}
	}
	if r.Cut {
		row("left out", "lists of mounts and devices: they were too long")
	}
	return t.Flush()
}

func prefixed(prefix, s string) string {
	if s == "" {
		return ""
	}
	return prefix + s
}

func stepOf(r *records.Record) string { return string(r.Job) + prefixed(".", r.Step) }

// fromWhere says what it took to have the image.
func fromWhere(s *jobstate.State) string {
	switch {
	case s == nil || s.Ready == nil:
		return ""
	case s.Hit:
		return "the node's store"
	case s.Pulled > 0:
		return "its registry, " + megabytes(s.Pulled)
	}
	return "the cluster's store, or another job's pull"
}

func verdicts(s *jobstate.State) string {
	if s == nil || s.Verdicts == nil {
		return ""
	}
	v := s.Verdicts
	parts := []string{prefixed("allowed by ", v.Policy), prefixed("signed by ", v.SignedBy), prefixed("rights: ", v.Rights)}
	if s.Failure != nil {
		parts[0] = prefixed("decided by ", v.Policy)
	}
	return strings.Join(slices.DeleteFunc(parts, func(p string) bool { return p == "" }), ", ")
}

func wantedText(w records.Wanted) string {
	parts := []string{
		prefixed("mounts=", strings.Join(w.Mounts, ",")), prefixed("devices=", strings.Join(w.Devices, ",")), prefixed("workdir=", w.Workdir),
		prefixed("unshare=", strings.Join(w.Unshare, ",")),
	}
	if w.Writable {
		parts = append(parts, "writable")
	}
	if w.Remap {
		parts = append(parts, "remap-root")
	}
	return strings.Join(slices.DeleteFunc(parts, func(p string) bool { return p == "" }), " ")
}

// times are those of the step, and in brackets those of the image's preparation.
func times(r *records.Record) string {
	text := phasesText(r.Seconds)
	if r.Image != nil && len(r.Image.Phases) > 0 {
		text += " (prepared in " + fmt.Sprintf("%.3f s: ", r.Image.Seconds) + phasesText(r.Image.Phases) + ")"
	}
	return text
}

func phasesText(seconds map[string]float64) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(seconds)) {
		parts = append(parts, fmt.Sprintf("%s %.3f s", name, seconds[name]))
	}
	return strings.Join(parts, ", ")
}
