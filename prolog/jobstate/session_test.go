package jobstate

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"testing"
)

// TestSessions: a process's leases count as a job's do, and end with it: also
// when its number has been given to another process, but not when nobody knows.
func TestSessions(t *testing.T) {
	run := t.TempDir()
	for _, w := range []Worker{{1, 10}, {2, 20}, {3, 30}, {4, 40}} {
		must(t, SetSessionLease(run, w, "x.p1"))
	}
	must(t, os.MkdirAll(filepath.Join(run, "sessions", "no-process"), 0o700))
	_, err := Create(run, Request{Job: "7", Image: "a"})
	must(t, err)
	must(t, SetLease(run, "7", "x.p1"))
	leased, err := Leased(run)
	must(t, err)
	if want := []string{"job 7", "process 1", "process 2", "process 3", "process 4"}; !reflect.DeepEqual(leased["x.p1"], want) {
		t.Errorf("leased by %v, want %v", leased["x.p1"], want)
	}
	must(t, EndSessions(run, func(pid int) (uint64, error) {
		switch pid {
		case 1:
			return 10, nil // lives
		case 2:
			return 21, nil // another one
		case 3:
			return 0, &fs.PathError{Op: "open", Path: "/proc/3/stat", Err: fs.ErrNotExist}
		}
		return 0, errors.New("it can't be told")
	}))
	leased, err = Leased(run)
	must(t, err)
	if want := []string{"job 7", "process 1", "process 4"}; !reflect.DeepEqual(leased["x.p1"], want) {
		t.Errorf("leased by %v, want %v", leased["x.p1"], want)
	}
}
