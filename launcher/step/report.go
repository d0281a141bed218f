package step

import (
	"time"

	"github.com/berth-hpc/berth/launcher"
)

// A Report is what became of a request on this node, for its Node, once the
// tasks have been told.
type Report struct {
	*Request
	// Asked is when the request came; Waited how long its image took from there,
	// Created how long making the container took. Zero where it did not get as far.
	Asked           time.Time
	Waited, Created time.Duration
	// Err is the failure that the tasks were told, nil for none; Built says of it
	// that the image was there. Gone: nobody was left to tell.
	Err         error
	Built, Gone bool
	// Container is what the tasks got. Joined says that it ran already.
	Container *launcher.Container
	Joined    bool
	// Writable and Remap are the request's, by the site's settings where it does not say.
	Writable, Remap bool
}

func newReport(r *Request, set Settings) *Report {
	return &Report{
		Request: r, Asked: time.Now(),
		Writable: r.writable(set), Remap: orDefault(r.Remap, set.Remap),
	}
}

// waited notes that the image is there, or will not be.
func (r *Report) waited() { r.Waited = time.Since(r.Asked) }

// building notes that all is there to make a container of.
func (r *Report) building() (end func()) {
	began := time.Now()
	r.Built = true
	return func() { r.Created = time.Since(began) }
}

// Label is what the container is called.
func (r *Report) Label() launcher.Label { return r.label() }
