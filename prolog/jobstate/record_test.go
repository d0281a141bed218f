package jobstate

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/berth-hpc/berth/fault"
)

const pbsJob JobID = "7[2].server"

func begin(t *testing.T, run string) *Common {
	t.Helper()
	c, err := BeginCommon(run, pbsJob, uint32(os.Getuid()))
	must(t, err)
	t.Cleanup(func() { c.lock.Close() })
	return c
}

type recorded struct {
	record *Record
	err    error
}

// wait is WaitForRecord in the background; what it says of progress comes first.
func waitRecord(ctx context.Context, run string) (<-chan string, <-chan recorded) {
	lines, done := make(chan string, 10), make(chan recorded, 1)
	go func() {
		r, err := WaitForRecord(ctx, run, pbsJob, func(line string) { lines <- line })
		done <- recorded{r, err}
	}()
	return lines, done
}

func TestWaitForRecord(t *testing.T) {
	run := t.TempDir()
	lines, done := waitRecord(t.Context(), run) // before there is anything
	c := begin(t, run)
	must(t, c.Set(&Record{Mode: "job", Progress: "one"}))
	if got := receive(t, lines); got != "one" {
		t.Errorf("progress %q", got)
	}
	must(t, c.Set(&Record{Mode: "job", PID: 12, PBSExec: "/opt/pbs"}))
	if got := receive(t, done); got.err != nil || *got.record != (Record{Mode: "job", PID: 12, PBSExec: "/opt/pbs"}) {
		t.Errorf("%+v", got)
	}
	c.lock.Close() // its maker ends, and the record stays good
	_, done = waitRecord(t.Context(), run)
	if got := receive(t, done); got.err != nil || got.record.PID != 12 {
		t.Errorf("%+v", got)
	}
	cause := &fault.Error{Op: "pull", Arg: "x", Blame: fault.User, Remedy: "look", Err: errors.New("no such image")}
	must(t, c.Set(&Record{Mode: "job", Failure: fault.NewMessage(cause)}))
	_, done = waitRecord(t.Context(), run)
	if got := receive(t, done); got.err == nil || got.err.Error() != "pull x: no such image" || fault.Remedy(got.err) != "look" {
		t.Errorf("%+v", got)
	}
}

// A maker that is killed leaves no outcome, only a free lock.
func TestWaitForRecordOfTheDead(t *testing.T) {
	run := t.TempDir()
	c := begin(t, run)
	must(t, c.Set(&Record{Mode: "job", Progress: "one"}))
	lines, done := waitRecord(t.Context(), run)
	receive(t, lines)
	c.lock.Close()
	if got := receive(t, done); got.err == nil || !strings.Contains(got.err.Error(), "was killed") || fault.Of(got.err) != fault.Site {
		t.Errorf("%+v", got)
	}
	ctx, cancel := context.WithCancel(t.Context())
	_, done = waitRecord(ctx, t.TempDir()) // no record at all
	cancel()
	if got := receive(t, done); !errors.Is(got.err, context.Canceled) {
		t.Errorf("%+v", got)
	}
}

// The record is readable for the job's user alone, whoever made the folders
// before, and a job's second container does not take the first one's place.
func TestRecordIsTheUsersAlone(t *testing.T) {
	run := t.TempDir()
	_, err := Create(run, Request{Job: pbsJob, UID: 1, Image: "a"})
	must(t, err)
	c := begin(t, run)
	uid := os.Getuid()
	if uid == 0 {
		uid = 1000
		c.uid = uid
	}
	must(t, c.Set(&Record{Mode: "ranks"}))
	for name, want := range map[string]fs.FileMode{"": 0o711, "..": 0o711, "record.json": 0o400, "maker.lock": 0o444, "prepare": 0o700} {
		info, err := os.Stat(filepath.Join(JobDir(run, pbsJob), name))
		must(t, err)
		if info.Mode().Perm() != want {
			t.Errorf("%q has mode %o, want %o", name, info.Mode().Perm(), want)
		}
		if owner := info.Sys().(*syscall.Stat_t).Uid; name == "record.json" && owner != uint32(uid) {
			t.Errorf("%q is user %d's", name, owner)
		} else if name != "record.json" && owner != uint32(os.Getuid()) {
			t.Errorf("%q is user %d's", name, owner)
		}
	}
	if _, err := BeginCommon(run, pbsJob, 1); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a second container for the job: %v", err)
	}
}

func TestCommonProcesses(t *testing.T) {
	run := t.TempDir()
	if all, err := CommonProcesses(run, pbsJob); err != nil || len(all) > 0 {
		t.Errorf("of no job: %v, %v", all, err)
	}
	c := begin(t, run)
	maker, holder := Worker{PID: 1, Start: 2}, Worker{PID: 3, Start: 4}
	must(t, c.SetHolder(holder))
	must(t, c.SetMaker(maker))
	if all, err := CommonProcesses(run, pbsJob); err != nil || !slices.Equal(all, []Worker{maker, holder}) {
		t.Errorf("%v, %v", all, err)
	}
}
