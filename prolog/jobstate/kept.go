package jobstate

import "os"

// A Kept is whose named containers go with a job: <job>/kept.json.
type Kept struct {
	UID    int   `json:"uid"`
	GID    int   `json:"gid"`
	Groups []int `json:"groups,omitempty"`
}

const keptFile = "kept.json"

// SetKept writes it down, before there are any.
func SetKept(runDir string, job JobID, k Kept) error {
	dir := JobDir(runDir, job)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return Folder{dir}.write(keptFile, k)
}

// ReadKept is fs.ErrNotExist for a job that has none.
func ReadKept(runDir string, job JobID) (k Kept, err error) {
	err = Folder{JobDir(runDir, job)}.read(keptFile, &k)
	return k, err
}
