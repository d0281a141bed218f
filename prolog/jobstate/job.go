package jobstate

import (
	"fmt"
	"regexp"
	"strconv"
)

// A JobID is what the scheduler calls a job: Slurm's number (4711), or the
// identifier that PBS prints (4711.server, for a part of an array
// 4711[3].server). It is always one safe element of a path.
type JobID string

// maxJobID bounds an id in bytes, so that names made with it stay file names.
const maxJobID = 200

// ParseJobID refuses what neither scheduler calls a job, and other ways to write
// a number: a job has one id.
func ParseJobID(s string) (JobID, error) {
	id := JobID(s)
	if id.IsPBS() {
		return id, nil
	}
	if n, err := strconv.ParseUint(s, 10, 32); err != nil || strconv.FormatUint(n, 10) != s {
		return "", fmt.Errorf("%q is not a job's id", s)
	}
	return id, nil
}

// IsPBS tells PBS's jobs from Slurm's, which are plain numbers.
func (id JobID) IsPBS() bool {
	form := regexp.MustCompile(`^[0-9]{1,18}(\[[0-9]{1,18}\])?\.[A-Za-z0-9][A-Za-z0-9._-]*$`)
	return len(id) <= maxJobID && form.MatchString(string(id))
}
