package simulate

import (
	"container/heap"
	"math"
	"math/rand/v2"
	"time"
)

// An engine lets time go on, in seconds.
type engine struct {
	now     float64
	events  events
	count   int // of events so far, which orders those of one time
	classes []*class
	random  *rand.Rand
}

type event struct {
	at float64
	n  int
	do func()
}

// events is a heap.
type events []event

// Len implements heap.Interface.
func (e events) Len() int { return len(e) }

// Less implements heap.Interface.
func (e events) Less(i, j int) bool {
	return e[i].at < e[j].at || e[i].at == e[j].at && e[i].n < e[j].n
}

// Swap implements heap.Interface.
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }

// Push implements heap.Interface.
func (e *events) Push(x any) { *e = append(*e, x.(event)) }

// Pop implements heap.Interface.
func (e *events) Pop() any {
	last := (*e)[len(*e)-1]
	(*e)[len(*e)-1] = event{}
	*e = (*e)[:len(*e)-1]
	return last
}

// after has do called in so many seconds.
func (e *engine) after(seconds float64, do func()) {
	e.count++
	heap.Push(&e.events, event{e.now + seconds, e.count, do})
}

// class adds a kind of flows.
func (e *engine) class(pace, most float64, uses ...use) *class {
	c := newClass(pace, most, uses...)
	e.classes = append(e.classes, c)
	return c
}

// run lets time go on until nothing is left to happen.
func (e *engine) run() {
	for {
		e.finish()
		share(e.classes)
		step := math.Inf(1)
		for _, c := range e.classes {
			step = math.Min(step, c.next())
		}
		if len(e.events) > 0 {
			step = math.Min(step, e.events[0].at-e.now)
		}
		if math.IsInf(step, 1) {
			return
		}
		for _, c := range e.classes {
			c.advance(step)
		}
		e.now += step
		for len(e.events) > 0 && e.events[0].at <= e.now {
			heap.Pop(&e.events).(event).do()
		}
	}
}

// finish tells those whose flows have ended.
func (e *engine) finish() {
	for again := true; again; {
		again = false
		for _, c := range e.classes {
			for done := c.ended(); done != nil; done = c.ended() {
				done()
				again = true
			}
		}
	}
}

// between is a time that is spread evenly over [d/2, d], as Berth's pauses are.
func (e *engine) between(d time.Duration) float64 {
	return d.Seconds() * (0.5 + 0.5*e.random.Float64())
}
