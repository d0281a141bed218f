package jobstate

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// Jobs lists the jobs that have a folder.
func Jobs(runDir string) ([]JobID, error) {
	entries, err := readDir(filepath.Join(runDir, "jobs"))
	if err != nil {
		return nil, err
	}
	var jobs []JobID
	for _, e := range entries {
		if id, err := ParseJobID(e.Name()); err == nil {
			jobs = append(jobs, id)
		}
	}
	slices.Sort(jobs)
	return jobs, nil
}

// Folders lists the preparations of a job.
func Folders(runDir string, job JobID) ([]Folder, error) {
	dir := filepath.Join(JobDir(runDir, job), "prepare")
	entries, err := readDir(dir)
	if err != nil {
		return nil, err
	}
	var folders []Folder
	for _, e := range entries {
		folders = append(folders, Folder{filepath.Join(dir, e.Name())})
	}
	return folders, nil
}

// SetLease writes down that the job uses the image named key in the store.
// The caller has opened the image before: a lease on an image that is being
// removed must not count.
func SetLease(runDir string, job JobID, key string) error {
	return setLease(JobDir(runDir, job), key)
}

// setLease fails where dir is gone: the job is over.
func setLease(dir, key string) error {
	dir = filepath.Join(dir, "leases")
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return os.WriteFile(filepath.Join(dir, key), nil, 0o600)
}

// Leased says who uses an image, by its key: "job 12", "process 345".
func Leased(runDir string) (map[string][]string, error) {
	leased := map[string][]string{}
	add := func(dir, who string) error {
		entries, err := readDir(filepath.Join(dir, "leases"))
		for _, e := range entries {
			leased[e.Name()] = append(leased[e.Name()], who)
		}
		return err
	}
	jobs, err := Jobs(runDir)
	for _, job := range jobs {
		err = errors.Join(err, add(JobDir(runDir, job), fmt.Sprintf("job %s", job)))
	}
	sessions, serr := Sessions(runDir)
	for _, p := range sessions {
		err = errors.Join(err, add(sessionDir(runDir, p), fmt.Sprintf("process %d", p.PID)))
	}
	return leased, errors.Join(err, serr)
}

// readDir takes a missing folder for an empty one.
func readDir(dir string) ([]os.DirEntry, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return entries, err
}
