package records

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Limits bound what is kept; zero is no bound.
type Limits struct {
	Keep  time.Duration // since a job's last record
	Jobs  int           // files, oldest first to go
	Bytes int64         // of all together
}

// pruneEvery is how often Prune looks at all: it runs after each job.
const pruneEvery = 5 * time.Minute

// Prune removes what is too old or too much, by the time of each job's last
// record. It does nothing if it did a moment ago.
func Prune(dir string, l Limits) error {
	stamp := filepath.Join(dir, "pruned")
	if st, err := os.Lstat(stamp); err == nil && time.Since(st.ModTime()) < pruneEvery {
		return nil
	}
	if _, err := os.Lstat(jobsDir(dir)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := os.WriteFile(stamp, nil, 0o600); err != nil {
		return err
	}
	now := time.Now()
	return errors.Join(os.Chtimes(stamp, now, now), prune(dir, l, now))
}

func prune(dir string, l Limits, now time.Time) error {
	files, err := list(dir)
	if err != nil {
		return err
	}
	type aged struct {
		name string
		time time.Time
		size int64
	}
	var all []aged
	for _, f := range files {
		if st, err := os.Lstat(filepath.Join(jobsDir(dir), f.name)); err == nil {
			all = append(all, aged{f.name, st.ModTime(), st.Size()})
		}
	}
	slices.SortFunc(all, func(a, b aged) int { return b.time.Compare(a.time) })
	bytes := int64(0)
	for i, a := range all {
		bytes += a.size
		if (l.Keep <= 0 || now.Sub(a.time) <= l.Keep) && (l.Jobs <= 0 || i < l.Jobs) && (l.Bytes <= 0 || bytes <= l.Bytes) {
			continue
		}
		if rerr := os.Remove(filepath.Join(jobsDir(dir), a.name)); rerr != nil && !errors.Is(rerr, fs.ErrNotExist) {
			err = errors.Join(err, rerr)
		}
	}
	return err
}
