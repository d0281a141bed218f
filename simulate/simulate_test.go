package simulate

import (
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"
)

// bare is a site without limits or costs.
func bare() Site {
	return Site{LockTimeout: time.Minute, Node: Node{Cores: 1}, Tries: 4, Wait: time.Second}
}

var small = Image{Compressed: 80e6, Squashed: 100e6, Layers: 4}

func run(t *testing.T, s Site, im Image, l Layout, nodes int) Result {
	t.Helper()
	r, err := Run(s, im, l, nodes, 1)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func near(a, b float64) bool { return math.Abs(a-b) <= 1e-6*math.Max(math.Abs(a), math.Abs(b)) }

// Where one thing alone takes time, how much can be told without a simulation.
func TestClosedForms(t *testing.T) {
	const nodes = 10
	for name, tc := range map[string]struct {
		layout Layout
		site   func(*Site)
		want   float64 // until the last node is ready
	}{
		"nothing takes time":          {NodeStores, func(*Site) {}, 0},
		"the registry's link":         {NodeStores, func(s *Site) { s.Registry.Bandwidth = 40e6 }, nodes * 80e6 / 40e6},
		"a connection":                {NodeStores, func(s *Site) { s.Registry.Connection = 8e6 }, 10},
		"the node's network":          {NodeStores, func(s *Site) { s.Node.Network = 8e6 }, 10},
		"the node's disk":             {NodeStores, func(s *Site) { s.Node.Disk = 10e6 }, 10},
		"the node's processors":       {NodeStores, func(s *Site) { s.Costs.Pull, s.Node.Cores = 1e-6, 4 }, 20},
		"what one core has to do":     {NodeStores, func(s *Site) { s.Costs.Pull, s.Costs.Serial, s.Node.Cores = 1e-6, 5e-7, 4 }, 40},
		"processors of one machine":   {NodeStores, func(s *Site) { s.Costs.Pull, s.SharedCores = 1e-6, 2 }, nodes * 80 / 2},
		"hashing":                     {NodeStores, func(s *Site) { s.Costs.Hash = 1e-8 }, 1},
		"before and after":            {NodeStores, func(s *Site) { s.Costs.Before, s.Costs.After = 1, 2 }, 3},
		"round trips":                 {NodeStores, func(s *Site) { s.Registry.RoundTrip = time.Second }, 3 + 1 + 1 + 1},
		"and those for a token":       {NodeStores, func(s *Site) { s.Registry.RoundTrip, s.Registry.Tokens = time.Second, true }, 7 + 1 + 1 + 1 + 1},
		"starts spread":               {NodeStores, func(s *Site) { s.Spread = 9 * time.Second }, 9},
		"the mirror's link":           {Mirror, func(s *Site) { s.Mirror.Bandwidth = 40e6 }, nodes * 80e6 / 40e6},
		"the registry behind it":      {Mirror, func(s *Site) { s.Registry.Bandwidth = 8e6 }, 10},
		"the registry, relayed":       {Mirror, func(s *Site) { s.Registry.Bandwidth, s.Mirror.Relays = 8e6, true }, (nodes + 1) * 10},
		"copies on the file system":   {ClusterCopy, func(s *Site) { s.FileSystem, s.LockTimeout = 100e6, time.Nanosecond }, 1 + nodes},
		"the puller's link":           {ClusterMount, func(s *Site) { s.Registry.Bandwidth, s.LockTimeout = 8e6, time.Nanosecond }, 10},
		"the puller writes what grew": {ClusterMount, func(s *Site) { s.FileSystem, s.LockTimeout = 10e6, time.Nanosecond }, 10},
	} {
		t.Run(name, func(t *testing.T) {
			s := bare()
			tc.site(&s)
			if s.LockTimeout < time.Minute {
				s.LockTimeout = 60 * time.Millisecond // looks cost nothing to speak of
			}
			r := run(t, s, small, tc.layout, nodes)
			if math.Abs(r.Last-tc.want) > 1e-6+0.005*tc.want {
				t.Errorf("%g s, want %g: %+v", r.Last, tc.want, r)
			}
		})
	}
}

// anySite draws one that is possible.
func anySite(r *rand.Rand) (Site, Image, int) {
	between := func(low, high float64) float64 { return low * math.Pow(high/low, r.Float64()) }
	s := DefaultSite()
	s.Registry.Bandwidth, s.Registry.Connection = between(1e7, 1e10), between(1e6, 1e9)
	s.Registry.RoundTrip = time.Duration(between(1e5, 1e8))
	s.Registry.Tokens = r.IntN(2) == 0
	s.Mirror.Bandwidth = between(1e7, 1e10)
	s.Mirror.Relays = r.IntN(2) == 0
	s.FileSystem = between(1e7, 1e11)
	s.Node = Node{Cores: between(1, 100), Network: between(1e7, 1e10), Disk: between(1e7, 1e10)}
	s.Spread = time.Duration(between(1e6, 1e10))
	compressed := between(1e6, 1e10)
	im := Image{Compressed: int64(compressed), Squashed: int64(compressed * between(0.5, 3)), Layers: 1 + r.IntN(30)}
	return s, im, 1 + r.IntN(200)
}

// What arrives was sent, once for each who wanted it, and every node is ready in
// the end; a first one not after the last.
func TestNothingIsLost(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1))
	for range 40 {
		s, im, n := anySite(random)
		for _, l := range Layouts() {
			r := run(t, s, im, l, n)
			what := fmt.Sprintf("%v, %d nodes, %+v of %+v", l, n, s, im)
			if r.Failed != 0 || !(0 < r.First && r.First <= r.Median && r.Median <= r.Most && r.Most <= r.Last) {
				t.Fatalf("%s: %+v", what, r)
			}
			asks := 2 + im.Layers
			if s.Registry.Tokens {
				asks += 3
			}
			pulls := map[Layout]int{NodeStores: n, Mirror: 1, ClusterCopy: 1, ClusterMount: 1}[l]
			if l != Mirror || !s.Mirror.Relays {
				if r.Registry.Requests != pulls*asks || !near(float64(r.Registry.Bytes), float64(pulls)*float64(im.Compressed)) {
					t.Fatalf("%s: %d requests, %d bytes, want %d times %d and %d", what, r.Registry.Requests, r.Registry.Bytes, pulls, asks, im.Compressed)
				}
			}
			if l == Mirror && (r.Mirror.Requests != n*(2+im.Layers) || !near(float64(r.Mirror.Bytes), float64(n)*float64(im.Compressed))) {
				t.Fatalf("%s: the mirror had %+v", what, r.Mirror)
			}
			if l == ClusterCopy && !near(float64(r.Read), float64(n)*float64(im.Squashed)) {
				t.Fatalf("%s: %d bytes were copied", what, r.Read)
			}
			converts := map[Layout]int{NodeStores: n, Mirror: n, ClusterCopy: 1, ClusterMount: 1}[l]
			cost := s.Costs
			cpu := float64(n)*(cost.Before+cost.After) + float64(converts)*(cost.Pull*float64(im.Compressed)+cost.Hash*float64(im.Squashed))
			if l == ClusterCopy {
				cpu += float64(n) * cost.Copy * float64(im.Squashed)
			}
			if r.Conversions != converts || !near(r.CPU, cpu) {
				t.Fatalf("%s: %d conversions, %g CPU s, want %d and %g", what, r.Conversions, r.CPU, converts, cpu)
			}
			if least := float64(r.Registry.Bytes) / s.Registry.Bandwidth; r.Last < least*(1-1e-6) {
				t.Fatalf("%s: %g s, and the registry's link takes %g", what, r.Last, least)
			}
		}
	}
}

// More of anything makes nothing slower, more nodes make nothing faster, but for
// a little: fair shares are not the best ones, and nodes that wait look by chance.
func TestMoreIsNotSlower(t *testing.T) {
	random := rand.New(rand.NewPCG(2, 2))
	for range 10 {
		s, im, n := anySite(random)
		for _, l := range Layouts() {
			slack := 1e-6
			if l == ClusterCopy || l == ClusterMount {
				slack = (s.LockTimeout / slowestLook).Seconds()
			}
			last := run(t, s, im, l, n).Last
			for name, more := range map[string]func(*Site){
				"registry":    func(s *Site) { s.Registry.Bandwidth *= 2 },
				"connection":  func(s *Site) { s.Registry.Connection *= 2 },
				"latency":     func(s *Site) { s.Registry.RoundTrip /= 2 },
				"mirror":      func(s *Site) { s.Mirror.Bandwidth *= 2 },
				"file system": func(s *Site) { s.FileSystem *= 2 },
				"cores":       func(s *Site) { s.Node.Cores *= 2 },
				"network":     func(s *Site) { s.Node.Network *= 2 },
				"disk":        func(s *Site) { s.Node.Disk *= 2 },
			} {
				better := s
				more(&better)
				if got := run(t, better, im, l, n).Last; got > last*(1+0.03)+slack {
					t.Fatalf("%v, %d nodes: twice the %s: %g s, with once %g: %+v of %+v", l, n, name, got, last, s, im)
				}
			}
			if got := run(t, s, im, l, 2*n).Last; got < last*(1-0.03)-slack {
				t.Fatalf("%v: %d nodes %g s, %d nodes %g: %+v of %+v", l, n, last, 2*n, got, s, im)
			}
		}
	}
}

// A share is fair if nothing is used beyond its capacity, and whoever could
// have more would take it from one that has no more.
func TestShareIsFair(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 3))
	for range 1000 {
		var resources []*resource
		for range 1 + random.IntN(4) {
			resources = append(resources, newResource(1+99*random.Float64()))
		}
		var classes []*class
		for range 1 + random.IntN(5) {
			c := newClass(0.1+random.Float64(), random.Float64()*50, use{resources[random.IntN(len(resources))], 0.1 + random.Float64()})
			for range random.IntN(5) {
				c.add(1, func() {})
			}
			classes = append(classes, c)
		}
		share(classes)
		used := map[*resource]float64{}
		fastest := map[*resource]float64{} // in level
		for _, c := range classes {
			for _, u := range c.uses {
				used[u.of] += c.rate * u.each * float64(c.active())
				fastest[u.of] = math.Max(fastest[u.of], c.rate/c.pace)
			}
		}
		for r, sum := range used {
			if sum > r.capacity*(1+1e-6) {
				t.Fatalf("%g of %g used", sum, r.capacity)
			}
		}
		for _, c := range classes {
			full := false
			for _, u := range c.uses {
				full = full || used[u.of] > u.of.capacity*(1-1e-6) && c.rate/c.pace > fastest[u.of]*(1-1e-6)
			}
			if c.active() > 0 && c.rate < c.most*(1-1e-6) && !full {
				t.Fatalf("a class could have more than %g: %+v", c.rate, c)
			}
		}
	}
}

// A registry that answers so many requests a second refuses the others, who come
// again, and some in the end not.
func TestRefusals(t *testing.T) {
	s := bare()
	s.Registry.Rate, s.Registry.Burst = 10, 20
	r := run(t, s, small, NodeStores, 50)
	answered := r.Registry.Requests - r.Registry.Refused
	if r.Registry.Refused == 0 || float64(answered) > 20+10*(r.Last+60) {
		t.Errorf("%+v", r)
	}
	if r.Failed == 0 {
		t.Errorf("all of 50 nodes got through: %+v", r)
	}
	s.Registry.Rate, s.Registry.Burst = 1000, 1000
	if r := run(t, s, small, NodeStores, 50); r.Failed != 0 || r.Registry.Refused != 0 {
		t.Errorf("a registry that is fast enough refuses: %+v", r)
	}
	s.Registry.Rate, s.Registry.Burst = 1e-9, 1
	if r := run(t, s, small, ClusterCopy, 50); r.Failed != 50 || r.Conversions != 0 {
		t.Errorf("a registry that is closed: %+v", r)
	}
}

func TestSameAgain(t *testing.T) {
	for _, l := range Layouts() {
		a, b := run(t, DefaultSite(), small, l, 100), run(t, DefaultSite(), small, l, 100)
		if !reflect.DeepEqual(a, b) {
			t.Errorf("%+v\n%+v", a, b)
		}
	}
}

func TestNonsense(t *testing.T) {
	for name, change := range map[string]func(s *Site, im *Image, n *int){
		"no nodes":    func(_ *Site, _ *Image, n *int) { *n = 0 },
		"no layers":   func(_ *Site, im *Image, _ *int) { im.Layers = 0 },
		"no bytes":    func(_ *Site, im *Image, _ *int) { im.Compressed = 0 },
		"no squashfs": func(_ *Site, im *Image, _ *int) { im.Squashed = -1 },
		"no cores":    func(s *Site, _ *Image, _ *int) { s.Node.Cores = 0 },
		"no timeout":  func(s *Site, _ *Image, _ *int) { s.LockTimeout = 0 },
	} {
		s, im, n := DefaultSite(), small, 3
		change(&s, &im, &n)
		if r, err := Run(s, im, NodeStores, n, 1); err == nil {
			t.Errorf("%s: %+v", name, r)
		}
	}
}
