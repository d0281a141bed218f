package imagecache

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// rateWindow is over how long a rate is taken.
const rateWindow = 10 * time.Second

// maxMetered bounds the layers that a Meter keeps: root has one for what a less
// trusted process says.
const maxMetered = 10_000

// A Meter makes of the progress of single layers what people want to know: how
// much is done of all of them, how fast it goes, how long it will take. The
// zero Meter is ready; it is for one goroutine at a time.
type Meter struct {
	// Now is the clock; nil means time.Now.
	Now func() time.Time

	last   Progress
	layers map[int]Progress
	paces  map[int]*pace // by layer; 0 is the sum
}

// Status is where a step stands.
type Status struct {
	Phase    Phase
	Layers   int // 0 where the step is not about layers
	Finished int // of them
	Amount
	// Flight holds the layers on their way, by number.
	Flight []LayerStatus
}

// LayerStatus is where one layer stands. It counts from 1.
type LayerStatus struct {
	Layer int
	Amount
}

// An Amount is some of something, in bytes.
type Amount struct {
	Done, Total int64         // Total is 0 where it is unknown
	Rate        float64       // bytes per second lately; 0 where it is unknown
	Left        time.Duration // until it is done; 0 where it is unknown
}

// Update is a ProgressFunc. It reports whether another step began.
func (m *Meter) Update(p Progress) bool {
	if p.Layer < 0 || p.Layer > maxMetered || p.Layers > maxMetered {
		return false
	}
	begins := m.layers == nil || p.Phase != m.last.Phase
	if begins {
		if m.transferring() && p.Phase == PhaseUnpack {
			return false // it runs beside the transfer, which is what is waited for
		}
		m.layers, m.paces = map[int]Progress{}, map[int]*pace{}
	}
	m.last, m.layers[p.Layer] = p, p
	now := m.now()
	if p.Layer > 0 {
		m.pace(p.Layer).note(now, p.Done)
	}
	var done int64
	for _, l := range m.layers {
		done += l.Done
	}
	m.pace(0).note(now, done)
	return begins
}

func (m *Meter) now() time.Time {
	if m.Now == nil {
		return time.Now()
	}
	return m.Now()
}

func (m *Meter) pace(layer int) *pace {
	if m.paces[layer] == nil {
		m.paces[layer] = &pace{}
	}
	return m.paces[layer]
}

// transferring says whether layers are still on their way.
func (m *Meter) transferring() bool {
	return m.last.Phase == PhasePull && m.finished() < m.last.Layers
}

func (m *Meter) finished() int {
	n := 0
	for _, p := range m.layers {
		if p.Layer > 0 && p.isDone() {
			n++
		}
	}
	return n
}

func (p Progress) isDone() bool { return p.Total > 0 && p.Done >= p.Total }

// Status returns where the step at hand stands.
func (m *Meter) Status() Status {
	s := Status{Phase: m.last.Phase, Layers: m.last.Layers, Finished: m.finished()}
	known := len(m.layers) >= s.Layers
	for _, i := range slices.Sorted(maps.Keys(m.layers)) {
		p := m.layers[i]
		s.Done, s.Total = s.Done+p.Done, s.Total+p.Total
		known = known && p.Total > 0
		if i > 0 && p.Done > 0 && p.Total > 0 && !p.isDone() {
			s.Flight = append(s.Flight, LayerStatus{i, m.amount(i, p.Done, p.Total)})
		}
	}
	if !known {
		s.Total = 0
	}
	s.Amount = m.amount(0, s.Done, s.Total)
	return s
}

func (m *Meter) amount(layer int, done, total int64) Amount {
	a := Amount{Done: done, Total: total, Rate: m.paces[layer].rate(m.now())}
	if a.Rate > 0 && total > done {
		a.Left = time.Duration(float64(total-done) / a.Rate * float64(time.Second))
	}
	return a
}

// String says it in a few words: "3 of 7 layers, 210 of 430 MB, 35 MB/s, 6 s
// left". It is empty where there is nothing to say.
func (s Status) String() string {
	text := s.Amount.String()
	if s.Layers > 1 && text != "" {
		text = fmt.Sprintf("%d of %d layers, %s", s.Finished, s.Layers, text)
	}
	return text
}

// String leaves out what is unknown.
func (a Amount) String() string {
	var parts []string
	switch {
	case a.Total > 0:
		parts = append(parts, fmt.Sprintf("%s of %s MB", mega(a.Done), mega(a.Total)))
	case a.Done > 0:
		parts = append(parts, mega(a.Done)+" MB")
	}
	return strings.Join(append(parts, a.Pace()...), ", ")
}

// Pace is the rate and the time left, in words, as far as they are known.
func (a Amount) Pace() []string {
	var parts []string
	if a.Rate > 0 {
		parts = append(parts, mega(int64(a.Rate))+" MB/s")
	}
	if a.Left > 0 {
		parts = append(parts, duration(a.Left)+" left")
	}
	return parts
}

// mega writes bytes in MB, with a digit behind the point where that counts.
func mega(n int64) string {
	if n > 0 && n < 10e6 {
		return fmt.Sprintf("%.1f", float64(n)/1e6)
	}
	return fmt.Sprintf("%.0f", float64(n)/1e6)
}

// duration is as exact as a guess should be.
func duration(d time.Duration) string {
	switch s := int(d.Seconds() + 0.999); {
	case s < 60:
		return fmt.Sprintf("%d s", s)
	case s < 3600:
		return fmt.Sprintf("%d min", (s+30)/60)
	default:
		return fmt.Sprintf("%d h %d min", s/3600, s%3600/60)
	}
}

// A pace remembers how much was done when, for as long as it matters.
type pace struct{ samples []sample }

type sample struct {
	at   time.Time
	done int64
}

// note adds a sample, some two a second at most. What was begun again starts
// anew.
func (p *pace) note(now time.Time, done int64) {
	n := len(p.samples)
	if n > 0 && done < p.samples[n-1].done {
		p.samples, n = nil, 0
	}
	if n > 1 && now.Sub(p.samples[n-2].at) < rateWindow/20 {
		p.samples = p.samples[:n-1] // only the latest one so near to another
	}
	p.samples = append(p.samples, sample{now, done})
	for len(p.samples) > 2 && now.Sub(p.samples[1].at) >= rateWindow {
		p.samples = p.samples[1:]
	}
}

// rate is in bytes per second up to now; 0 before a second has passed, and for
// what was never noted.
func (p *pace) rate(now time.Time) float64 {
	if p == nil || len(p.samples) == 0 {
		return 0
	}
	first, last := p.samples[0], p.samples[len(p.samples)-1]
	seconds := now.Sub(first.at).Seconds()
	if seconds < 1 {
		return 0
	}
	return float64(last.done-first.done) / seconds
}
