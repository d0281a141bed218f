package main

import (
	"context"
	"encoding/json"
	"os/exec"
	"sync"
	"time"

	"github.com/berth-hpc/berth/fault"
)

// How a warming job of Slurm's tells whoever submitted it how it gets on, where
// nodes and submit hosts share no file system: in its Comment.

// reportEvery is how often at most, so that a thousand nodes are no burden for
// slurmctld.
const reportEvery = 20 * time.Second

// maxReported bounds the names of images in a report.
const maxReported = 5

// A nodeReport is one node's word. Its text is short: it is a job's comment.
type nodeReport struct {
	Of     int      `json:"of"`               // images
	Ready  int      `json:"ready"`            // of them, pulled ones included
	Pulled int      `json:"pulled"`           // now
	Bytes  int64    `json:"bytes"`            // of those files
	Now    string   `json:"now,omitempty"`    // the image under way
	Failed []string `json:"failed,omitempty"` // some, each with its reason
	Ended  bool     `json:"ended"`
}

// A warmReport collects what becomes of images here, and reports it.
type warmReport struct {
	mu     sync.Mutex
	result *warmResult
	word   nodeReport
	said   time.Time
	tell   func(text string) // nil: nobody asks
}

func (c *warmCmd) newReport(s *session, result *warmResult) *warmReport {
	r := &warmReport{result: result}
	if job := s.env("SLURM_JOB_ID"); c.Report && job != "" {
		r.tell = func(text string) {
			ctx, cancel := context.WithTimeout(context.Background(), askSlurm)
			defer cancel()
			// The exit status says what matters, too.
			if err := exec.CommandContext(ctx, "scontrol", "update", "JobId="+job, "Comment="+text).Run(); err != nil {
				s.log.WithError(err).Warn("the job's comment is not written")
			}
		}
	}
	return r
}

func (r *warmReport) of(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.word.Of = n
}

func (r *warmReport) begin(image string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.word.Now = image
	r.say(false)
}

func (r *warmReport) add(im warmedImage) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.result.Images = append(r.result.Images, im)
	switch {
	case im.State == warmReady:
		r.word.Ready++
	case im.State == warmPulled:
		r.word.Ready, r.word.Pulled, r.word.Bytes = r.word.Ready+1, r.word.Pulled+1, r.word.Bytes+im.Bytes
	case len(r.word.Failed) < maxReported:
		text := im.Image + ": " + im.State
		if im.Failure != nil {
			text = im.Image + ": " + im.Failure.Text
		}
		r.word.Failed = append(r.word.Failed, short200(fault.Clean(text)))
	}
	r.say(false)
}

func short200(s string) string {
	r := []rune(s)
	return string(r[:min(len(r), 200)])
}

func (r *warmReport) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.word.Ended, r.word.Now = true, ""
	r.say(true)
}

func (r *warmReport) say(now bool) {
	if r.tell == nil || !now && time.Since(r.said) < reportEvery {
		return
	}
	r.said = time.Now()
	if data, err := json.Marshal(r.word); err == nil {
		r.tell(string(data))
	}
}
