package jobstate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berth-hpc/berth/fault"
)

// A Record says what became of the container that all tasks of a job share on
// a node (PBS). Root writes it; it is the one file of a job's folder that the
// job's user may read, and nobody else. They may change it, too, to their own
// harm: of root's, PBS's hook alone reads it back, and nothing but the mode.
type Record struct {
	// Mode is "job", where every task of the job runs in the container, or
	// "ranks", where those do that ask for it.
	Mode     string         `json:"mode"`
	Progress string         `json:"progress,omitempty"` // a line for the user
	PID      int            `json:"pid,omitempty"`      // a process in the container, once it stands
	PBSExec  string         `json:"pbs_exec,omitempty"` // where PBS's programs are
	Workdir  bool           `json:"workdir,omitempty"`  // the user named where tasks start
	Failure  *fault.Message `json:"failure,omitempty"`
}

// Settled says that nothing more will change in it.
func (r *Record) Settled() bool { return r.PID != 0 || r.Failure != nil }

// A Common is the place of a container that all tasks of a job share, as the
// process that makes it writes it (root).
//
//	jobs/<job>/record.json   Record; the user's, 0400
//	           maker.lock    locked while somebody makes the container
//	           maker.json    who that is
//	           holder.json   the process of the user's that keeps it
type Common struct {
	dir  string
	uid  int
	lock *os.File
}

// BeginCommon makes the place and takes its lock, which lasts as long as the
// caller's process. A job that has a place already is refused: whoever starts
// a job again has ended it before.
func BeginCommon(runDir string, job JobID, uid uint32) (*Common, error) {
	c := &Common{dir: JobDir(runDir, job), uid: int(uid)}
	if err := os.MkdirAll(c.dir, 0o711); err != nil {
		return nil, err
	}
	// Others may have made them before, for root alone. Names of jobs are no
	// secret; what is below has rights of its own.
	for _, dir := range []string{filepath.Dir(c.dir), c.dir} {
		if err := os.Chmod(dir, 0o711); err != nil {
			return nil, err
		}
	}
	lock, err := os.OpenFile(filepath.Join(c.dir, makerLock), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o444)
	if err != nil {
		return nil, fmt.Errorf("begin job %s: %w", job, err)
	}
	c.lock = lock
	if err := unix.FcntlFlock(lock.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK}); err != nil {
		return nil, os.NewSyscallError("fcntl(F_OFD_SETLK)", err)
	}
	return c, nil
}

const (
	makerLock  = "maker.lock"
	makerFile  = "maker.json"
	holderFile = "holder.json"
	recordFile = "record.json"
)

// SetMaker records the process that makes the container, SetHolder the one
// that keeps it.
func (c *Common) SetMaker(w Worker) error { return Folder{c.dir}.write(makerFile, w) }

// SetHolder is for cleanup, which ends that process.
func (c *Common) SetHolder(w Worker) error { return Folder{c.dir}.write(holderFile, w) }

// Set replaces the record.
func (c *Common) Set(r *Record) error {
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return Folder{c.dir}.replaceFor(recordFile, data, func(f *os.File) error {
		return errors.Join(f.Chmod(0o400), f.Chown(c.uid, -1))
	})
}

// CommonProcesses are those that BeginCommon's caller and its container have
// left to be ended with the job, the maker first: it makes the other.
func CommonProcesses(runDir string, job JobID) ([]Worker, error) {
	var all []Worker
	var err error
	for _, name := range []string{makerFile, holderFile} {
		var w Worker
		rerr := Folder{JobDir(runDir, job)}.read(name, &w)
		if rerr == nil {
			all = append(all, w)
		} else if !errors.Is(rerr, fs.ErrNotExist) {
			err = errors.Join(err, rerr)
		}
	}
	return all, err
}

const (
	// recordWait is how long a task waits until there is a record at all: the
	// hook before it has seen to that, unless the node is very slow.
	recordWait = 30 * time.Second
	// A task looks often at first: warm containers stand within milliseconds.
	recordLooks = 100
	recordOften = 2 * time.Millisecond
	recordEvery = 100 * time.Millisecond
)

// WaitForRecord waits until the container of a job stands, or cannot, and
// returns the record. It runs as the job's user; progress gets each new line.
func WaitForRecord(ctx context.Context, runDir string, job JobID, progress func(line string)) (*Record, error) {
	until, last := time.Now().Add(recordWait), ""
	for i := 0; ; i++ {
		busy := makerBusy(runDir, job) // first: it writes the record before it ends
		r, err := readRecord(runDir, job)
		switch {
		case err == nil && r.Failure != nil:
			return r, r.Failure.Err()
		case err == nil && r.Settled():
			return r, nil
		case err == nil && !busy:
			return nil, errMaker("the process that makes the container was killed")
		case err == nil && r.Progress != last:
			last = r.Progress
			progress(last)
		case errors.Is(err, fs.ErrPermission):
			return nil, &fault.Error{Op: "join the container of job", Arg: string(job), Blame: fault.User, Err: errors.New("the job is another user's")}
		case err != nil && (!errors.Is(err, fs.ErrNotExist) || time.Now().After(until)):
			return nil, errMaker(err.Error())
		}
		every := recordEvery
		if i < recordLooks {
			every = recordOften
		}
		if err := pause(ctx, every); err != nil {
			return nil, err
		}
	}
}

func errMaker(cause string) error {
	return &fault.Error{
		Op: "wait for the job's container", Blame: fault.Site, Err: errors.New(cause),
		Remedy: "submit the job again; if it happens twice, tell your administrator to read pbs_mom's log and /run/berth/step.log on this node",
	}
}

func readRecord(runDir string, job JobID) (*Record, error) {
	data, err := os.ReadFile(filepath.Join(JobDir(runDir, job), recordFile))
	if err != nil {
		return nil, err
	}
	r := new(Record)
	return r, json.Unmarshal(data, r)
}

func makerBusy(runDir string, job JobID) bool {
	return lockedByOther(filepath.Join(JobDir(runDir, job), makerLock))
}
