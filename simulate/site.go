package simulate

import (
	"fmt"
	"time"
)

// A Layout is where nodes get an image from that they do not have.
type Layout int

// The layouts that a site can choose between.
const (
	NodeStores   Layout = iota // each node pulls from the registry
	Mirror                     // each node pulls from a mirror, which pulls once
	ClusterCopy                // one node pulls into the cluster's store, all copy it
	ClusterMount               // one node pulls into the cluster's store, all mount it there
)

// Layouts are all of them.
func Layouts() []Layout { return []Layout{NodeStores, Mirror, ClusterCopy, ClusterMount} }

// String implements fmt.Stringer.
func (l Layout) String() string {
	names := [...]string{"node stores", "mirror", "cluster store, copied", "cluster store, in place"}
	if l < 0 || int(l) >= len(names) {
		return fmt.Sprintf("layout %d", int(l))
	}
	return names[l]
}

// An Image is what is started. Sizes are in bytes.
type Image struct {
	Compressed int64 // of all layers, as they are transferred
	Squashed   int64 // of the squashfs file
	Layers     int
}

// A Server answers pulls. Zero values are no limit.
type Server struct {
	Bandwidth  float64 // bytes per second, to all together
	Connection float64 // bytes per second, to each connection
	RoundTrip  time.Duration
	// Rate and Burst are how many requests are answered per second, and at
	// once; the others get status 429, with RetryAfter where that is not 0.
	Rate, Burst float64
	RetryAfter  time.Duration
	// Tokens says that nobody gets an answer without a token, which everybody
	// gets from a service of the same latency.
	Tokens bool
}

// A Site is a cluster as far as it matters here.
type Site struct {
	Registry Server
	// Mirror is a pull-through cache beside the nodes. Relays says that whoever
	// asks for what it does not have yet is served from the registry once more,
	// while it gets that for itself, as Docker's own registry does it; other
	// mirrors let them wait for what they get.
	Mirror struct {
		Server
		Relays bool
	}
	// FileSystem is the bandwidth of the cluster's file system, reads and
	// writes together, in bytes per second.
	FileSystem float64
	// LockTimeout is cluster.lock_timeout, from which the pauses of waiting
	// nodes follow.
	LockTimeout time.Duration
	Node        Node
	// Spread is the time over which the nodes' starts are spread.
	Spread time.Duration
	// SharedCores is for nodes that are namespaces on one machine: all of them
	// share so many cores. 0 means that each has Node.Cores.
	SharedCores float64
	// Tries and Wait are registry.retries and the first pause of them.
	Tries int
	Wait  time.Duration
	Costs Costs
}

// A Node is one of the cluster's machines.
type Node struct {
	Cores   float64
	Network float64 // bytes per second; 0 is no limit
	Disk    float64 // bytes per second that its store can write; 0 is no limit
}

// Costs are CPU seconds of Berth and of the scheduler. Those per byte scale
// with the image.
type Costs struct {
	Before float64 `json:"before"` // per node, before its first request
	After  float64 `json:"after"`  // per node, from the image to the running task
	// Pull is per byte of a layer as it is transferred: TCP, hashes, inflating,
	// compressing. Serial is the part of it that one core has to do.
	Pull   float64 `json:"pull"`
	Serial float64 `json:"serial"`
	Hash   float64 `json:"hash"` // per byte of the squashfs file, when it is written
	Copy   float64 `json:"copy"` // per byte of the squashfs file, from the cluster's store
}

// maxPause bounds the pauses between tries, as imagecache does.
const maxPause = 30 * time.Second

// DefaultSite is a site as many are: docs/scale.md says where the costs were
// measured. The rest is for the admin to say.
func DefaultSite() Site {
	s := Site{
		Registry:    Server{Bandwidth: 1.25e9, RoundTrip: 20 * time.Millisecond},
		FileSystem:  10e9,
		LockTimeout: time.Minute,
		Node:        Node{Cores: 16, Network: 1.25e9, Disk: 500e6},
		Spread:      time.Second,
		Tries:       4,
		Wait:        time.Second,
		Costs:       MeasuredCosts(),
	}
	s.Mirror.Bandwidth, s.Mirror.RoundTrip = 1.25e9, time.Millisecond
	return s
}

// check says what is wrong with a request.
func check(s Site, im Image, nodes int) error {
	switch {
	case nodes < 1:
		return fmt.Errorf("%d nodes", nodes)
	case im.Layers < 1 || im.Compressed < 1 || im.Squashed < 1:
		return fmt.Errorf("an image of %d layers, %d bytes, %d as squashfs", im.Layers, im.Compressed, im.Squashed)
	case s.Node.Cores <= 0:
		return fmt.Errorf("nodes of %g cores", s.Node.Cores)
	case s.LockTimeout <= 0:
		return fmt.Errorf("a lock timeout of %v", s.LockTimeout)
	}
	return nil
}
