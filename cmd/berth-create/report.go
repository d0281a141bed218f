package main

import (
	"context"
	"os"
	"time"

	"github.com/berth-hpc/berth/cmd/internal/build"
	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/launcher/step"
	"github.com/berth-hpc/berth/prolog/jobstate"
	"github.com/berth-hpc/berth/prolog/metrics"
	"github.com/berth-hpc/berth/prolog/records"
	"golang.org/x/sys/unix"
)

// version is set by the linker (-X main.version=…) and by nothing else.
var version string

// Between two steps of a busy node the counts are not added up more often than
// this, and nobody is waited for longer than foldLimit.
const (
	foldEvery = 15 * time.Second
	foldLimit = 2 * time.Second
)

// Report implements step.Node: it writes the record of the step, counts it, and
// notes the container for `berth ps`. The tasks run by then. What cannot be
// written is lost; it must harm no job.
func (n *node) Report(r *step.Report) {
	prepared := n.prepared()
	dir := records.Dir(n.cfg.Store.Dir)
	record := n.record(r, prepared)
	_ = records.Append(dir, record)
	_ = metrics.Append(dir, event(r, record, prepared))
	if r.Container != nil && !r.Joined {
		_ = n.noteContainer(r, record)
	}
	if metrics.Recent(dir, foldEvery) {
		return // the epilog does
	}
	ctx, cancel := context.WithTimeout(context.Background(), foldLimit)
	defer cancel()
	_ = metrics.Fold(ctx, dir, n.cfg.Records.Textfile)
}

// prepared is what the image's preparation says; nil for none.
func (n *node) prepared() *jobstate.State {
	if n.asked == (jobstate.Folder{}) {
		return nil
	}
	s, err := n.asked.State()
	if err != nil {
		return nil
	}
	return &s
}

func (n *node) record(r *step.Report, prepared *jobstate.State) *records.Record {
	label := r.Label()
	job := jobstate.JobID(label.Job)
	node, _ := os.Hostname()
	rec := &records.Record{
		Job: job, Step: label.Step, Node: node, UID: uint32(r.User.UID),
		Account: n.account, Partition: n.queue, Time: r.Asked.UTC(),
		Asked: fault.Clean(r.Image), Image: prepared, Name: label.Name, Joined: r.Joined,
		Wanted: records.Wanted{
			Mounts: r.Mounts, Devices: r.Devices, Workdir: r.Workdir, Writable: r.Writable, Remap: r.Remap, Unshare: r.Unshare,
		},
		Seconds:  map[string]float64{"image_wait": r.Waited.Seconds(), "create": r.Created.Seconds()},
		Versions: records.Versions{Berth: build.Version(version), Kernel: kernel(), Slurm: fault.Clean(r.Version)},
		Failure:  failure(r),
	}
	if known := jobstate.KnownJob(n.cfg.Node.RunDir, job, rec.UID); known != nil {
		rec.Account, rec.Partition = known.Account, known.Partition
	}
	if prepared != nil && prepared.Ready != nil {
		rec.Digest = prepared.Ready.Digest
	}
	if c := r.Container; c != nil && !r.Joined {
		rec.Said = &records.Said{Mounts: c.Made.Mounts, Devices: c.Made.Devices, Notes: c.Notes}
	}
	return rec
}

func failure(r *step.Report) *fault.Message {
	switch {
	case r.Gone:
		return &fault.Message{Text: "the step ended before its container was ready", Blame: fault.User.String()}
	case r.Err == nil:
		return nil
	}
	m := fault.NewMessage(r.Err)
	if r.Built && m.Cause == "" {
		m.Cause = fault.Container
	}
	return m
}

// event is what to count of a step. A failure of the image's preparation was
// counted there, unless it wanted a login that nobody had.
func event(r *step.Report, rec *records.Record, prepared *jobstate.State) metrics.Event {
	e := metrics.Event{Account: rec.Account, Waited: r.Waited.Seconds(), Container: r.Container != nil && !r.Joined}
	counted := !r.Built && prepared != nil && prepared.Failure != nil && prepared.LoginWanted == nil
	if r.Err != nil && !counted {
		e.Failure = rec.Failure.Counted()
	}
	if r.Created > 0 {
		e.Seconds = map[string]float64{"create": r.Created.Seconds()}
	}
	return e
}

// noteContainer notes the container's mount namespace.
func (n *node) noteContainer(r *step.Report, rec *records.Record) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(r.Container.Mount.Fd()), &st); err != nil {
		return err
	}
	return jobstate.AddContainer(n.cfg.Node.RunDir, jobstate.Container{
		Job: rec.Job, Step: rec.Step, Name: rec.Name, UID: rec.UID, Image: rec.Asked, Digest: rec.Digest, Time: rec.Time, Mount: st.Ino,
	})
}

func kernel() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}
