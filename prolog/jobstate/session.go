package jobstate

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// A session is a user's own process outside of any job, and all that it has
// started, which uses images of the node's store (berth-mount.socket). Nobody
// tells when it ends: whoever looks at leases asks first which processes there are.

func sessionDir(runDir string, w Worker) string {
	return filepath.Join(runDir, "sessions", fmt.Sprintf("%d.%d", w.PID, w.Start))
}

// SetSessionLease writes down that process w uses the image named key, as
// SetLease does for jobs.
func SetSessionLease(runDir string, w Worker, key string) error {
	dir := sessionDir(runDir, w)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return setLease(dir, key)
}

// Sessions lists the processes that have leases, or had when they lived.
func Sessions(runDir string) ([]Worker, error) {
	entries, err := readDir(filepath.Join(runDir, "sessions"))
	var all []Worker
	for _, e := range entries {
		var w Worker
		if n, serr := fmt.Sscanf(e.Name(), "%d.%d", &w.PID, &w.Start); serr == nil && n == 2 {
			all = append(all, w)
		}
	}
	return all, err
}

// EndSessions removes the leases of processes that are gone. start is when a
// process started, or an error. It runs under the lock on leases.
func EndSessions(runDir string, start func(pid int) (uint64, error)) error {
	all, err := Sessions(runDir)
	for _, w := range all {
		if now, serr := start(w.PID); serr == nil && now == w.Start || serr != nil && !errors.Is(serr, os.ErrNotExist) {
			continue
		}
		err = errors.Join(err, os.RemoveAll(sessionDir(runDir, w)))
	}
	return err
}
