package prolog

import (
	"errors"
	"io/fs"

	"github.com/berth-hpc/berth/imagecache/store"
	"github.com/berth-hpc/berth/prolog/jobstate"
	"github.com/berth-hpc/berth/prolog/metrics"
	"github.com/berth-hpc/berth/prolog/records"
	"golang.org/x/sys/unix"
)

// A Preparation is one line of `berth node status`.
type Preparation struct {
	jobstate.Request
	// Busy says that a worker is at it; State is nil until there is an
	// outcome, Progress the last line for the user.
	Busy     bool            `json:"busy"`
	State    *jobstate.State `json:"state,omitempty"`
	Progress string          `json:"progress,omitempty"`
}

// Status lists what was prepared, and is being prepared, for the jobs on this
// node. Only root may read it.
func Status(cfg Config) ([]Preparation, error) {
	jobs, err := jobstate.Jobs(cfg.RunDir)
	if err != nil {
		return nil, err
	}
	var all []Preparation
	for _, job := range jobs {
		folders, err := jobstate.Folders(cfg.RunDir, job)
		if err != nil {
			return nil, err
		}
		for _, f := range folders {
			p, err := preparation(f)
			if errors.Is(err, fs.ErrNotExist) {
				continue // ended meanwhile, or just begins
			}
			if err != nil {
				return nil, err
			}
			all = append(all, p)
		}
	}
	return all, nil
}

func preparation(f jobstate.Folder) (Preparation, error) {
	req, err := f.Request()
	if err != nil {
		return Preparation{}, err
	}
	p := Preparation{Request: req, Busy: f.Busy(), Progress: f.Progress()}
	s, err := f.State()
	if err == nil {
		p.State = &s
	} else if !errors.Is(err, fs.ErrNotExist) {
		return Preparation{}, err
	}
	return p, nil
}

// A StoreStatus is how a node's store stands.
type StoreStatus struct {
	Images int    `json:"images"`
	Bytes  int64  `json:"bytes"`
	Free   int64  `json:"free_bytes"` // of its disk
	Counts Counts `json:"counts"`
}

// Counts are what was counted on this node so far, over all accounts; what
// happened in the last seconds may not be in them yet.
type Counts struct {
	Hits       int64 `json:"hits"`
	Misses     int64 `json:"misses"`
	Failed     int64 `json:"failed"`
	Containers int64 `json:"containers"`
	Pulled     int64 `json:"pulled_bytes"`
}

// StatusOfStore looks at the node's store; a node may have none yet.
func StatusOfStore(cfg Config) (StoreStatus, error) {
	var s StoreStatus
	sums, err := metrics.Load(records.Dir(cfg.StoreDir))
	if err != nil {
		return s, err
	}
	for _, a := range sums.Accounts {
		s.Counts.Hits += a.Hits
		s.Counts.Misses += a.Misses
		s.Counts.Containers += a.Containers
		s.Counts.Pulled += a.Pulled
		for _, n := range a.Failures {
			s.Counts.Failed += n
		}
	}
	st, err := store.OpenExisting(cfg.StoreDir)
	if err != nil {
		return s, nil
	}
	entries, err := st.Entries()
	for _, e := range entries {
		s.Images, s.Bytes = s.Images+1, s.Bytes+e.Size
	}
	var disk unix.Statfs_t
	if serr := unix.Statfs(cfg.StoreDir, &disk); serr == nil {
		s.Free = int64(disk.Bavail) * disk.Bsize
	}
	return s, err
}
