package records

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/berth-hpc/berth/prolog/jobstate"
)

// Read returns what a node has of one user's job, oldest first. It is
// fs.ErrNotExist where there is nothing, and fs.ErrPermission for another user's
// and where the file system has no access control lists.
func Read(dir string, job jobstate.JobID, uid uint32) ([]Record, error) {
	var all []Record
	missing := error(nil)
	for _, kind := range []string{older, current} {
		some, err := readFile(path(dir, job, uid, kind))
		if errors.Is(err, fs.ErrNotExist) {
			missing = err
			continue
		}
		if err != nil {
			return nil, err
		}
		all = append(all, some...)
	}
	if len(all) == 0 {
		return nil, cmp.Or(missing, fs.ErrNotExist)
	}
	return all, nil
}

// ReadAll is Read over all users that had a job of this number, for root.
func ReadAll(dir string, job jobstate.JobID) ([]Record, error) {
	files, err := list(dir)
	if err != nil {
		return nil, err
	}
	var all []Record
	for _, f := range files {
		if f.job != job || f.kind != current {
			continue
		}
		some, err := Read(dir, job, f.uid)
		if err != nil {
			return nil, err
		}
		all = append(all, some...)
	}
	if len(all) == 0 {
		return nil, fs.ErrNotExist
	}
	slices.SortStableFunc(all, func(a, b Record) int { return a.Time.Compare(b.Time) })
	return all, nil
}

// readFile skips lines that are no records, however long: those that were cut by
// a kill, and what a power cut has left.
func readFile(name string) ([]Record, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFile+maxLine+2))
	var all []Record
	for line := range bytes.Lines(text) {
		var r Record
		if len(bytes.TrimSpace(line)) > 0 && json.Unmarshal(line, &r) == nil {
			all = append(all, r)
		}
	}
	return all, err
}

// A file is one of a job and user.
type file struct {
	name string
	job  jobstate.JobID
	uid  uint32
	kind string
}

// list lists the files below dir; what has another kind of name is left out.
func list(dir string) ([]file, error) {
	entries, err := os.ReadDir(jobsDir(dir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var files []file
	for _, e := range entries {
		f := file{name: e.Name(), kind: older}
		text, ok := strings.CutSuffix(e.Name(), older)
		if !ok {
			f.kind = current
			text, ok = strings.CutSuffix(e.Name(), current)
		}
		dot := strings.LastIndexByte(text, '.')
		if !ok || dot < 0 {
			continue
		}
		uid, uerr := strconv.ParseUint(text[dot+1:], 10, 32)
		id, err := jobstate.ParseJobID(text[:dot])
		if err == nil && uerr == nil {
			f.job, f.uid = id, uint32(uid)
			files = append(files, f)
		}
	}
	return files, nil
}
