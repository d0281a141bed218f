package prolog

import (
	"errors"
	"io/fs"

	"github.com/berth-hpc/berth/prolog/jobstate"
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
