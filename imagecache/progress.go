package imagecache

import (
	"io"
	"sync"
	"time"
)

// reportEvery is the shortest time between two reports of one step.
const reportEvery = 100 * time.Millisecond

// A Phase is what a pull is doing.
type Phase string

// The phases of a pull in their order. Layers are unpacked while later ones
// are still on their way.
const (
	PhaseResolve Phase = "resolve" // asking for the digest
	PhaseWait    Phase = "wait"    // another process pulls the same image
	PhasePull    Phase = "pull"    // layers on their way
	PhaseUnpack  Phase = "unpack"  // layers being unpacked
	PhaseSquash  Phase = "squash"  // squashfs being written
	PhasePublish Phase = "publish" // synced and named
)

// Progress is the state of one step of a pull.
type Progress struct {
	Phase Phase `json:"phase"`
	// Layer counts from 1 and is 0 where the phase is not about one layer;
	// Layers is how many the image has.
	Layer  int `json:"layer,omitempty"`
	Layers int `json:"layers,omitempty"`
	// Done and Total are bytes (compressed, for PhasePull); Total is 0
	// where it is unknown.
	Done  int64 `json:"done"`
	Total int64 `json:"total,omitempty"`
}

// A ProgressFunc is told of progress. It is called from several goroutines,
// though never from two at once, at most some ten times a second per layer,
// and always once when a layer is done. It must not block.
type ProgressFunc func(Progress)

// reporter calls a ProgressFunc from one goroutine at a time. A nil
// ProgressFunc makes it silent.
type reporter struct {
	mu sync.Mutex
	f  ProgressFunc
}

func (r *reporter) report(p Progress) {
	if r.f == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.f(p)
}

// reader reports how much of r has been read, as p with Done set.
func (r *reporter) reader(in io.Reader, p Progress) io.Reader {
	return &watched{in: in, p: p, to: r}
}

type watched struct {
	in   io.Reader
	p    Progress
	to   *reporter
	last time.Time
}

// Read implements io.Reader.
func (w *watched) Read(b []byte) (int, error) {
	n, err := w.in.Read(b)
	w.p.Done += int64(n)
	if now := time.Now(); err != nil || now.Sub(w.last) >= reportEvery {
		w.last = now
		w.to.report(w.p)
	}
	return n, err
}
