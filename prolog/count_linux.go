package prolog

import (
	"context"
	"time"

	"github.com/berth-hpc/berth/imagecache/store"
	"github.com/berth-hpc/berth/policy"
	"github.com/berth-hpc/berth/prolog/jobstate"
	"github.com/berth-hpc/berth/prolog/metrics"
	"github.com/berth-hpc/berth/prolog/records"
)

// What a node did is counted (package metrics) and goes with the outcome to the
// step's record (package records). Counting never fails what is counted: a
// disk that takes no line must not keep a job from its image.

// phases are how long the parts of a preparation took, in seconds; nil notes
// nothing.
type phases map[string]float64

// begin begins a part; end adds its time.
func (p phases) begin(name string) (end func()) {
	began := time.Now()
	return func() {
		if p != nil {
			p[name] += time.Since(began).Seconds()
		}
	}
}

// noteCost takes over what the account measured of an image that it has just
// pulled. It cannot have taken longer than root waited for it.
func (w *worker) noteCost(im store.Image) {
	r, err := im.Record()
	if err != nil {
		return
	}
	w.pulled += max(r.Compressed, 0)
	for theirs, ours := range map[string]string{"pull": "pull", "squash": "convert"} {
		if s := r.Seconds[theirs]; s > 0 && s <= w.cfg.PrepareDeadline.Seconds() && w.phases != nil {
			w.phases[ours] += s
		}
	}
}

// verdicts are what was decided so far; nil for nothing.
func (w *worker) verdicts() *jobstate.Verdicts {
	v := jobstate.Verdicts{Rights: w.rights, SignedBy: w.signer}
	if w.decision != nil {
		v.Policy = w.decision.By()
	}
	if v == (jobstate.Verdicts{}) {
		return nil
	}
	return &v
}

// noteRights notes why the job may use im.
func (w *worker) noteRights(im store.Image) {
	if a, err := im.Access(); err == nil && a.Public {
		w.rights = "public"
	} else if err == nil {
		w.rights = "granted"
	}
}

// count counts the outcome of a worker, which has time.
func (w *worker) count(s jobstate.State) {
	e := outcomeEvent(s)
	e.Account = jobstate.AccountOf(w.cfg.RunDir, w.req.Job, w.req.UID)
	w.cfg.note(e)
	w.cfg.fold(context.Background())
}

// countWarm counts what was pulled for no job.
func (c Config) countWarm(bytes int64) {
	if bytes > 0 {
		c.note(metrics.Event{Pulled: bytes})
		c.fold(context.Background())
	}
}

// outcomeEvent is what to count of an outcome. One that wants a login is none
// yet: the step's helper sees to the rest.
func outcomeEvent(s jobstate.State) metrics.Event {
	e := metrics.Event{Seconds: map[string]float64{"prepare": s.Seconds}, Pulled: s.Pulled}
	for phase, seconds := range s.Phases {
		e.Seconds[phase] = seconds
	}
	switch {
	case s.LoginWanted != nil:
	case s.Failure != nil:
		e.Failure = s.Failure.Counted()
	default:
		e.Hit, e.Miss = s.Hit, !s.Hit
	}
	return e
}

// countPrepare counts what Prepare did: the time for which it held a prolog
// up, and what it prepared itself.
func (c Config) countPrepare(req jobstate.Request, told *policy.Job, held time.Duration, at *jobstate.State) {
	e := metrics.Event{Waited: held.Seconds()}
	if at != nil {
		e = outcomeEvent(*at)
		e.Waited = held.Seconds()
	}
	if told != nil {
		e.Account = told.Account
	} else if at != nil {
		e.Account = jobstate.AccountOf(c.RunDir, req.Job, req.UID)
	}
	if at != nil || held > 0 {
		c.note(e)
	}
}

func (c Config) note(e metrics.Event) {
	if c.StoreDir != "" { // as in parts of a node that have none
		_ = metrics.Append(records.Dir(c.StoreDir), e)
	}
}

// foldLimit bounds how long others who add up are waited for.
const foldLimit = 2 * time.Second

func (c Config) fold(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, foldLimit)
	defer cancel()
	_ = metrics.Fold(ctx, records.Dir(c.StoreDir), c.Textfile)
}

// tidyRecords adds up what is left to be, and removes old records, after a job.
func (c Config) tidyRecords(ctx context.Context) error {
	c.fold(ctx)
	return records.Prune(records.Dir(c.StoreDir), c.Records)
}

// NoteEvicted counts images that left the store to make room, and adds up.
func (c Config) NoteEvicted(ctx context.Context, images int, bytes int64) {
	if images > 0 {
		c.note(metrics.Event{Evicted: images, EvictedBytes: bytes})
		c.fold(ctx)
	}
}
