// Package records keeps what became of each step's container on this node, for
// its user and the administrator: one file per job and user, a line of JSON
// for each step.
//
//	<store>/records/jobs/<job>.<uid>.jsonl       root's; the user may read it, too
//	                     <job>.<uid>.old.jsonl   what did not fit in any more
//
// Root writes, from facts of its own; what a process of the user's said is
// apart (Said), bounded and cleaned. The file stays root's, because its owner
// could fill the disk with it: the user reads by an access control list.
package records

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/prolog/jobstate"
)

// A Record is what became of the container of one step on one node; of a whole
// job, where that has one (PBS).
type Record struct {
	Job       jobstate.JobID `json:"job"`
	Step      string         `json:"step,omitempty"` // a number, or batch, interactive
	Node      string         `json:"node"`
	UID       uint32         `json:"uid"`
	Account   string         `json:"account,omitempty"`   // as the scheduler's prolog said
	Partition string         `json:"partition,omitempty"` // PBS's queue
	Time      time.Time      `json:"time"`                // when the container was asked for

	// Asked is the reference as the user typed it, Digest what it meant.
	Asked  string `json:"asked"`
	Digest string `json:"digest,omitempty"`
	// Image is what its preparation says; nil for a file of the user's, and
	// where there was none.
	Image *jobstate.State `json:"image,omitempty"`

	Name   string `json:"name,omitempty"`   // of a container that is kept
	Joined bool   `json:"joined,omitempty"` // it ran already

	// Wanted are the options of the step, as they were given.
	Wanted Wanted `json:"wanted"`
	// Seconds are the times of this node, by root's clock: image_wait, how long
	// the step waited for its image; create, how long making the container took.
	Seconds  map[string]float64 `json:"seconds,omitempty"`
	Failure  *fault.Message     `json:"failure,omitempty"` // nil: the container stood
	Versions Versions           `json:"versions"`
	// Said is what the user's own process says of the container that it made.
	Said *Said `json:"said_by_user,omitempty"`
	// Cut says that lists of the user's were left out: they were too long.
	Cut bool `json:"cut,omitempty"`
}

// Wanted are options of a step.
type Wanted struct {
	Mounts   []string `json:"mounts,omitempty"`
	Devices  []string `json:"devices,omitempty"`
	Workdir  string   `json:"workdir,omitempty"`
	Writable bool     `json:"writable,omitempty"`
	Remap    bool     `json:"remap_root,omitempty"`
	Unshare  []string `json:"unshare,omitempty"`
}

// Versions are of the programs that took part.
type Versions struct {
	Berth  string `json:"berth"`
	Kernel string `json:"kernel"`
	Slurm  string `json:"slurm,omitempty"`
}

// Said is what the process says that built the container. It is the user's: it
// may say anything.
type Said struct {
	Mounts  []string `json:"mounts,omitempty"`  // SOURCE:TARGET[:ro]
	Devices []string `json:"devices,omitempty"` // VENDOR/CLASS=NAME
	Notes   []string `json:"notes,omitempty"`   // what the user was told
}

// Bounds, in bytes.
const (
	maxLine = 64 << 10 // of a record
	maxFile = 1 << 20  // of a file; twice as much is kept of a job
)

// Dir is where a store's records are.
func Dir(storeDir string) string { return filepath.Join(storeDir, "records") }

func jobsDir(dir string) string { return filepath.Join(dir, "jobs") }

func path(dir string, job jobstate.JobID, uid uint32, kind string) string {
	return filepath.Join(jobsDir(dir), fmt.Sprintf("%s.%d%s", job, uid, kind))
}

// What names of files end with.
const (
	current = ".jsonl"
	older   = ".old.jsonl"
)

// Append adds r to its job's file below dir. It runs as root. Each record is one
// write that begins with a line feed: what a process was killed in the middle
// of spoils no other line.
func Append(dir string, r *Record) error {
	line, err := encode(r)
	if err != nil {
		return err
	}
	f, err := open(dir, r.Job, r.UID)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.Write(line)
	return err
}

// encode bounds the line: what users choose the length of goes first.
func encode(r *Record) ([]byte, error) {
	data, err := json.Marshal(r)
	if err == nil && len(data) > maxLine {
		short := *r
		short.Said, short.Cut = nil, true
		short.Wanted.Mounts, short.Wanted.Devices, short.Wanted.Unshare = nil, nil, nil
		if short.Wanted.Workdir = fault.Clean(r.Wanted.Workdir); len(short.Wanted.Workdir) > 1024 {
			short.Wanted.Workdir = ""
		}
		data, err = json.Marshal(short)
	}
	if err == nil && len(data) > maxLine {
		err = fmt.Errorf("a record of %d bytes", len(data))
	}
	return append(append([]byte{'\n'}, data...), '\n'), err
}

// open opens the file of a job and user, made if need be. One that is full is
// put aside, in the place of the one before.
func open(dir string, job jobstate.JobID, uid uint32) (*os.File, error) {
	if err := makeDirs(dir); err != nil {
		return nil, err
	}
	name := path(dir, job, uid, current)
	if st, err := os.Lstat(name); err == nil && st.Size() >= maxFile {
		if err := os.Rename(name, path(dir, job, uid, older)); err != nil {
			return nil, err
		}
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_APPEND|unix.O_NOFOLLOW, 0)
	if !errors.Is(err, fs.ErrNotExist) {
		return f, err
	}
	if f, err = os.OpenFile(name, os.O_WRONLY|os.O_APPEND|os.O_CREATE|unix.O_NOFOLLOW, 0o600); err != nil {
		return nil, err
	}
	// Where the file system has no such lists, root alone can read it.
	if err := letRead(f, uid); err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
		f.Close()
		return nil, os.NewSyscallError("fsetxattr", err)
	}
	return f, nil
}

// makeDirs makes the folders: names of jobs are no secret, but a list of
// everybody's is nobody's business.
func makeDirs(dir string) error {
	for _, d := range []string{dir, jobsDir(dir)} {
		err := os.Mkdir(d, 0o711)
		if err == nil {
			err = os.Chmod(d, 0o711) // whatever the umask
		}
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return nil
}

// letRead gives one more user the right to read f (acl(5), in the form of
// linux/posix_acl_xattr.h).
func letRead(f *os.File, uid uint32) error {
	const (
		version                              = 2
		userObj, user, groupObj, mask, other = 0x01, 0x02, 0x04, 0x10, 0x20
		read, write                          = 4, 2
		none                                 = ^uint32(0)
	)
	type entry struct {
		Tag, Perm uint16
		ID        uint32
	}
	var acl bytes.Buffer
	// Writing to a buffer cannot fail.
	_ = binary.Write(&acl, binary.LittleEndian, uint32(version))
	_ = binary.Write(&acl, binary.LittleEndian, []entry{
		{userObj, read | write, none}, {user, read, uid}, {groupObj, 0, none}, {mask, read, none}, {other, 0, none},
	})
	return unix.Fsetxattr(int(f.Fd()), "system.posix_acl_access", acl.Bytes(), 0)
}
