package simulate

import "math"

// A resource is shared by the flows that use it. Capacity is per second.
type resource struct {
	capacity float64
	moved    float64 // so far
}

// newResource has no limit where capacity is not positive.
func newResource(capacity float64) *resource {
	if capacity <= 0 {
		capacity = math.Inf(1)
	}
	return &resource{capacity: capacity}
}

// A use says how much of a resource a flow takes for each unit of its own.
type use struct {
	of   *resource
	each float64
}

// A class is all flows of a kind. They are alike, in size too, so that they have
// one rate, and those that begin first end first.
type class struct {
	uses []use
	most float64 // of the rate of one flow, in units per second; +Inf for none
	// pace makes flows of different units comparable: where two classes share
	// something, their rates are as their paces.
	pace  float64
	under *class // while this one has flows, they are not faster than its

	rate   float64 // of each
	served float64 // of a flow that was there from the beginning
	queue  []flow
	head   int
}

// A flow ends when its class has served until.
type flow struct {
	until float64
	done  func()
}

func newClass(pace, most float64, uses ...use) *class {
	if most <= 0 {
		most = math.Inf(1)
	}
	return &class{uses: uses, most: most, pace: pace}
}

func (c *class) active() int { return len(c.queue) - c.head }

// add begins a flow of so many units.
func (c *class) add(units float64, done func()) {
	if c.active() == 0 {
		c.queue, c.head, c.served = c.queue[:0], 0, 0 // keeps numbers small
	}
	c.queue = append(c.queue, flow{c.served + units, done})
}

// next is the time until the first flow of c ends.
func (c *class) next() float64 {
	if c.active() == 0 {
		return math.Inf(1)
	}
	left := math.Max(c.queue[c.head].until-c.served, 0)
	if left == 0 || math.IsInf(c.rate, 1) {
		return 0
	}
	return left / c.rate
}

// advance lets time go on.
func (c *class) advance(d float64) {
	n := float64(c.active())
	if n == 0 {
		return
	}
	units := c.rate * d
	if d == 0 {
		units = 0
	}
	if math.IsInf(c.rate, 1) {
		units = c.queue[c.head].until - c.served
	}
	c.served += units
	for _, u := range c.uses {
		u.of.moved += units * u.each * n
	}
}

// ended takes the next flow that has been served, nil if there is none.
func (c *class) ended() func() {
	const rounding = 1e-9
	if c.active() == 0 || c.queue[c.head].until-c.served > rounding*math.Max(1, c.served) {
		return nil
	}
	done := c.queue[c.head].done
	c.queue[c.head].done = nil
	c.head++
	return done
}

// share gives each flow its max-min fair rate. Classes that follow another one
// are bound by what that one has when nobody is bound.
func share(classes []*class) {
	fill(classes, func(c *class) float64 { return c.most })
	followed := map[*class]float64{}
	for _, c := range classes {
		if c.under != nil && c.under.active() > 0 && c.rate > c.under.rate {
			followed[c] = c.under.rate
		}
	}
	if len(followed) == 0 {
		return
	}
	fill(classes, func(c *class) float64 {
		if most, ok := followed[c]; ok {
			return most
		}
		return c.most
	})
}

// fill lets all rates grow alike, until a resource is used up or a class has
// the most that it can have; those stay, and the others grow on.
func fill(classes []*class, most func(*class) float64) {
	free := map[*resource]float64{}
	var open []*class
	for _, c := range classes {
		c.rate = 0
		if c.active() == 0 {
			continue
		}
		open = append(open, c)
		for _, u := range c.uses {
			free[u.of] = u.of.capacity
		}
	}
	for level := 0.0; len(open) > 0; {
		level = grow(open, free, level, most)
		open = settle(open, free, level, most)
	}
}

// grow returns the level at which the next class cannot go on, and takes what
// all need until there.
func grow(open []*class, free map[*resource]float64, level float64, most func(*class) float64) float64 {
	demand := map[*resource]float64{}
	step := math.Inf(1)
	for _, c := range open {
		step = math.Min(step, most(c)/c.pace-level)
		for _, u := range c.uses {
			demand[u.of] += u.each * c.pace * float64(c.active())
		}
	}
	for r, d := range demand {
		if d > 0 {
			step = math.Min(step, free[r]/d)
		}
	}
	step = math.Max(step, 0)
	if math.IsInf(step, 1) {
		return step
	}
	for r, d := range demand {
		free[r] -= step * d
	}
	return level + step
}

// settle gives all their rates so far, and returns those that can grow on.
func settle(open []*class, free map[*resource]float64, level float64, most func(*class) float64) []*class {
	const rounding = 1e-9
	var rest []*class
	for _, c := range open {
		bound := math.IsInf(level, 1) || most(c)/c.pace <= level*(1+rounding)
		for _, u := range c.uses {
			bound = bound || u.each > 0 && free[u.of] <= rounding*u.of.capacity
		}
		if c.rate = level * c.pace; !bound {
			rest = append(rest, c)
		}
	}
	return rest
}
