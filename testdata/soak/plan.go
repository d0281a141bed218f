package soak

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// A Shape is the way in which a job is started.
type Shape string

// The shapes that jobs have.
const (
	Batch Shape = "batch" // sbatch --container-image: the script runs in the image, on one node
	Step  Shape = "step"  // srun --container-image, on any number of nodes
	Steps Shape = "steps" // a batch script on the node, whose srun has the image
)

// A Job is one of a round.
type Job struct {
	Name     string        // NR.JOB of its round and number
	After    time.Duration // of the round's begin it is submitted
	User     string
	Image    string // of Images
	Shape    Shape
	Nodes    []string
	Tasks    int // on each node
	Writable bool
	Remap    bool // root in appearance
	Sleeps   time.Duration
	Code     int           // with which its tasks end
	Cancel   time.Duration // after its submission; 0 never
}

// String is one line of a plan.
func (j Job) String() string {
	var more []string
	for word, on := range map[string]bool{"writable": j.Writable, "root": j.Remap, fmt.Sprintf("cancelled after %v", j.Cancel): j.Cancel > 0} {
		if on {
			more = append(more, word)
		}
	}
	slices.Sort(more)
	return fmt.Sprintf("%6v job %s: %s of %s, %s on %s x %d, %v, exit %d %s",
		j.After, j.Name, j.Shape, j.User, j.Image, strings.Join(j.Nodes, ","), j.Tasks, j.Sleeps, j.Code, strings.Join(more, ", "))
}

// A Fault is something that breaks in a round, and for how long.
type Fault struct {
	After time.Duration // of the round's begin
	For   time.Duration // until it is mended; of a kill: how long its victim is waited for
	Kind  string        // of Kinds
	Node  string        // "" for those that are not about one
	Image string        // whose file is damaged
	Draw  uint64        // what else is left to chance: which bit, how far
}

// String is one line of a plan.
func (f Fault) String() string {
	return fmt.Sprintf("%6v fault: %s", f.After, strings.Join(strings.Fields(fmt.Sprintf("%s %s %s for %v", f.Kind, f.Node, f.Image, f.For)), " "))
}

// A Round is what happens until all is mended and looked at.
type Round struct {
	Jobs   []Job
	Faults []Fault
}

// String is the whole of a round, in the order of its moments.
func (r Round) String() string {
	type line struct {
		at   time.Duration
		text string
	}
	var lines []line
	for _, j := range r.Jobs {
		lines = append(lines, line{j.After, j.String()})
	}
	for _, f := range r.Faults {
		lines = append(lines, line{f.After, f.String()})
	}
	slices.SortStableFunc(lines, func(a, b line) int { return int(a.at - b.at) })
	var b strings.Builder
	for _, l := range lines {
		fmt.Fprintln(&b, l.text)
	}
	return b.String()
}

// Users and Nodes are those of package cluster.
var (
	Users = []string{"alice", "bob", "carol"}
	Nodes = []string{"n1", "n2", "n3"}
)

// How much happens in a round, and in what time.
const (
	jobsOfRound   = 12
	faultsOfRound = 4
	roundLength   = 9 * time.Second // within it all begins
)

// Plan is the round with this number, from 0, of a seed.
func Plan(seed uint64, number int) Round {
	d := draw{rand.New(rand.NewPCG(seed, uint64(number)))}
	var r Round
	for i := range jobsOfRound {
		r.Jobs = append(r.Jobs, d.job(fmt.Sprintf("%d.%d", number, i)))
	}
	// Every kind comes before one comes again.
	for i := range faultsOfRound {
		at := number*faultsOfRound + i
		turn := rand.New(rand.NewPCG(seed, 1<<32+uint64(at/len(Kinds)))).Perm(len(Kinds))
		r.Faults = append(r.Faults, d.fault(Kinds[turn[at%len(Kinds)]]))
	}
	return r
}

// A draw is what is left to chance.
type draw struct{ *rand.Rand }

func (d draw) one(of []string) string { return of[d.IntN(len(of))] }

// between is a moment or a length, in steps that a plan can print.
func (d draw) between(from, to time.Duration) time.Duration {
	return (from + time.Duration(d.Int64N(int64(to-from)))).Round(50 * time.Millisecond)
}

func (d draw) job(name string) Job {
	j := Job{
		Name: name, After: d.between(0, roundLength), User: d.one(Users), Shape: []Shape{Batch, Step, Steps}[d.IntN(3)],
		Tasks: 1 + d.IntN(2), Sleeps: d.between(0, 4*time.Second), Code: []int{0, 0, 0, 3, 42}[d.IntN(5)],
		Writable: d.IntN(3) == 0, Remap: d.IntN(5) == 0,
	}
	j.Nodes = slices.Clone(Nodes)
	d.Shuffle(len(j.Nodes), func(a, b int) { j.Nodes[a], j.Nodes[b] = j.Nodes[b], j.Nodes[a] })
	j.Nodes = j.Nodes[:1+d.IntN(len(Nodes))]
	if j.Shape == Batch {
		j.Nodes, j.Tasks = j.Nodes[:1], 1
	}
	slices.Sort(j.Nodes)
	j.Image = d.one(mayUse(j.User))
	if d.IntN(8) == 0 {
		j.Cancel = d.between(0, 3*time.Second)
	}
	return j
}

func (d draw) fault(k Kind) Fault {
	f := Fault{Kind: k.Name, After: d.between(0, roundLength), For: d.between(2*time.Second, 6*time.Second), Draw: d.Uint64()}
	if k.OfNode {
		f.Node = cmp.Or(k.Only, d.one(Nodes))
	}
	if k.OfImage {
		f.Image = d.one(publicImages())
	}
	return f
}
