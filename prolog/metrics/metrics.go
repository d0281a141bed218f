// Package metrics counts what a node does with images, for Prometheus.
//
// Whoever has something to count appends one line to a spool, which takes a
// prolog some ten microseconds and waits for nobody. Later, where nobody waits,
// Fold adds the lines up and writes the text that node_exporter's textfile
// collector reads.
//
//	<store>/records/events      the spool: one Event of JSON a line
//	                events.<n>  a part of it that is being added up
//	                metrics.json  the sums, and the number of the last part in them
//
// A part is in the sums or it is not: their file, replaced by rename, says up to
// which part they go. So nothing is lost or counted twice by processes that
// write at the same time, nor by one that is killed at any moment. A power cut
// may lose what the kernel had not yet written of the last seconds.
package metrics

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// An Event is something to count. Several things may be in one.
type Event struct {
	// Account is what the scheduler's prolog said; "" where it did not.
	Account string `json:"account,omitempty"`
	// Hit and Miss say where an image was when a job wanted it; a preparation
	// that failed is neither.
	Hit  bool `json:"hit,omitempty"`
	Miss bool `json:"miss,omitempty"`
	// Failure is the cause of a failure; "" for none. See fault.Causes.
	Failure string `json:"failure,omitempty"`
	Pulled  int64  `json:"pulled,omitempty"` // bytes from a registry, as transferred
	// Container says that a container stood.
	Container bool `json:"container,omitempty"`
	// Waited is for how many seconds a node of an allocation waited.
	Waited float64 `json:"waited,omitempty"`
	// Seconds are durations by phase.
	Seconds map[string]float64 `json:"seconds,omitempty"`
	// Evicted images left the store to make room, with so many bytes.
	Evicted      int   `json:"evicted,omitempty"`
	EvictedBytes int64 `json:"evicted_bytes,omitempty"`
}

const (
	spoolName = "events"
	sumsName  = "metrics.json"
	lockName  = "metrics.lock"
	// maxSpool bounds what is kept where nobody adds up, in bytes.
	maxSpool = 4 << 20
	maxTries = 10
)

// Append notes e below dir, which is made if need be. It never waits. It runs
// as root.
func Append(dir string, e Event) error {
	line, err := json.Marshal(e)
	if err != nil {
		return err
	}
	f, err := openSpool(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	// The line feed first: a line that a kill has cut spoils no other.
	_, err = f.Write(append(append([]byte{'\n'}, line...), '\n'))
	return err
}

// openSpool opens the spool with a shared lock: Fold, which has renamed it
// before, waits for those that still write.
func openSpool(dir string) (*os.File, error) {
	name := filepath.Join(dir, spoolName)
	for range maxTries {
		f, err := os.OpenFile(name, os.O_WRONLY|os.O_APPEND|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
		if errors.Is(err, fs.ErrNotExist) {
			if err = os.Mkdir(dir, 0o711); err == nil || errors.Is(err, fs.ErrExist) {
				continue
			}
		}
		if err != nil {
			return nil, err
		}
		same, err := lockedAs(f, name)
		if err == nil && same {
			return f, nil
		}
		f.Close()
		if err != nil {
			return nil, err
		}
	}
	return nil, errors.New("the spool of metrics changes too fast")
}

// lockedAs takes the lock and says whether f is still what has the name.
func lockedAs(f *os.File, name string) (bool, error) {
	err := unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return false, nil
	}
	if err != nil {
		return false, os.NewSyscallError("flock", err)
	}
	own, err := f.Stat()
	if err != nil {
		return false, err
	}
	named, err := os.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err == nil && own.Size() > maxSpool {
		err = fmt.Errorf("%s is full: nobody adds it up", name)
	}
	return err == nil && os.SameFile(own, named), err
}
