package simulate

import (
	"math"
	"math/rand/v2"
	"slices"
)

// A Result is what a start came to. Times are seconds from the start.
type Result struct {
	Layout string  `json:"layout"`
	Nodes  int     `json:"nodes"`
	First  float64 `json:"first_s"`
	Median float64 `json:"median_s"`
	Most   float64 `json:"p95_s"`
	Last   float64 `json:"last_s"`
	// Failed nodes were refused by the registry too often.
	Failed   int     `json:"failed"`
	Registry Traffic `json:"registry"`
	Mirror   Traffic `json:"mirror"`
	// Of the cluster's file system: bytes of images, and how often a waiting
	// node looked at the lock.
	Read    int64   `json:"cluster_read_bytes"`
	Written int64   `json:"cluster_written_bytes"`
	Looks   int     `json:"lock_looks"`
	CPU     float64 `json:"cpu_s"` // of all nodes together, Berth's and the scheduler's
	// Conversions is how many nodes converted the image.
	Conversions int `json:"conversions"`
}

// Run lets an image that is nowhere start on nodes by one of the layouts. seed
// decides how the random pauses turn out.
func Run(site Site, image Image, layout Layout, nodes int, seed uint64) (Result, error) {
	if err := check(site, image, nodes); err != nil {
		return Result{}, err
	}
	w := newWorld(site, image, layout, nodes, seed)
	for i := range nodes {
		n := &node{w: w}
		// Evenly, as a scheduler's tree of messages does.
		w.e.after(site.Spread.Seconds()*float64(i)/float64(max(nodes-1, 1)), n.start)
	}
	w.e.run()
	return w.result(layout, nodes), nil
}

// A world is all that a run shares.
type world struct {
	site       Site
	image      Image
	layerBytes float64
	e          *engine

	registry, mirror *server
	cores            *resource // those that nodes share, if they do

	before, hashing, after      *class // CPU seconds, each on one core
	pulling, relayed, following *class // bytes of layers: from the registry, through the mirror, as the mirror gets them
	fromMirror, filling         *class
	copying                     *class // bytes of the squashfs file

	cluster  *cluster // nil without
	cache    []cached // what the mirror has, by layer
	manifest cached   // of manifest and config
	ready    []float64
	failed   int
	converts int
}

func newWorld(site Site, image Image, layout Layout, nodes int, seed uint64) *world {
	w := &world{site: site, image: image, layerBytes: float64(image.Compressed) / float64(image.Layers)}
	w.e = &engine{random: rand.New(rand.NewPCG(seed, 1))}
	w.registry = newServer(w.e, site.Registry, site)
	w.cores = newResource(float64(nodes) * site.Node.Cores)
	if site.SharedCores > 0 {
		w.cores = newResource(site.SharedCores)
	}
	for _, c := range []**class{&w.before, &w.hashing, &w.after} {
		*c = w.e.class(1, 1, use{w.cores, 1})
	}
	if layout == Mirror {
		w.mirror = newServer(w.e, site.Mirror.Server, site)
		w.cache = make([]cached, image.Layers)
	}
	w.addTransfers()
	if layout == ClusterCopy || layout == ClusterMount {
		w.addCluster(layout == ClusterMount)
	}
	return w
}

// addTransfers makes the classes of layers' bytes.
func (w *world) addTransfers() {
	c, node := w.site.Costs, w.site.Node
	pace := 1 / math.Max(c.Pull, 1e-12)
	grows := float64(w.image.Squashed) / float64(w.image.Compressed)
	// What a node converts is bound by its processors, its network and its disk.
	most := least(rate(node.Cores, c.Pull), rate(1, c.Serial), node.Network, rate(node.Disk, grows))
	cpu := use{w.cores, c.Pull}
	registry := use{w.registry.link, 1}
	w.pulling = w.e.class(pace, least(most, w.site.Registry.Connection), registry, cpu)
	if w.mirror == nil {
		return
	}
	mirror := use{w.mirror.link, 1}
	w.fromMirror = w.e.class(pace, least(most, w.site.Mirror.Connection), mirror, cpu)
	w.relayed = w.e.class(pace, least(most, w.site.Mirror.Connection, w.site.Registry.Connection), registry, mirror, cpu)
	w.filling = w.e.class(pace, w.site.Registry.Connection, registry)
	w.following = w.e.class(pace, least(most, w.site.Mirror.Connection), mirror, cpu)
	w.following.under = w.filling
}

// rate is capacity per each; 0, which is no limit, where either is.
func rate(capacity, each float64) float64 {
	if each <= 0 {
		return 0
	}
	return capacity / each
}

// least is the smallest of limits, of which 0 is none.
func least(limits ...float64) float64 {
	l := math.Inf(1)
	for _, x := range limits {
		if x > 0 {
			l = math.Min(l, x)
		}
	}
	return l
}

func (w *world) result(layout Layout, nodes int) Result {
	slices.Sort(w.ready)
	r := Result{
		Layout: layout.String(), Nodes: nodes, Failed: w.failed, Conversions: w.converts,
		First: quantile(w.ready, 0), Median: quantile(w.ready, 0.5), Most: quantile(w.ready, 0.95), Last: quantile(w.ready, 1),
		Registry: w.registry.traffic, CPU: w.cores.moved,
	}
	r.Registry.Bytes = bytes(w.registry.link.moved)
	if w.mirror != nil {
		r.Mirror = w.mirror.traffic
		r.Mirror.Bytes = bytes(w.mirror.link.moved)
	}
	if c := w.cluster; c != nil {
		r.Read, r.Written, r.Looks = bytes(c.read.moved), bytes(c.written.moved), c.looks
	}
	return r
}

func bytes(f float64) int64 { return int64(math.Round(f)) }

// quantile of a sorted series, 0 of an empty one.
func quantile(sorted []float64, q float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[int(math.Ceil(q*float64(len(sorted)-1)))]
}
