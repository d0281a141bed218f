package simulate

import "time"

// How often a waiting node looks, as parts of the lock's time-out; see package
// imagecache/store (linklock_linux.go).
const (
	fastestLook = 60
	slowestLook = 12
)

// failuresShared is how many nodes try before all have the answer.
const failuresShared = 2

// A cluster is the cluster's store.
type cluster struct {
	w             *world
	mount         bool
	locked        bool
	published     bool
	failures      int
	looks         int
	read, written *resource // they count; files limits
}

func (w *world) addCluster(mount bool) {
	c := &cluster{w: w, mount: mount, read: newResource(0), written: newResource(0)}
	w.cluster = c
	costs, n := w.site.Costs, w.site.Node
	files := newResource(w.site.FileSystem)
	grows := float64(w.image.Squashed) / float64(w.image.Compressed)
	pulling := w.pulling
	pulling.uses = append(pulling.uses, use{files, grows}, use{c.written, grows})
	// The puller's own disk is not in it, but its network is twice.
	pulling.most = least(rate(n.Cores, costs.Pull), rate(1, costs.Serial), rate(n.Network, 1+grows), w.site.Registry.Connection)
	w.copying = w.e.class(1/max(costs.Copy, 1e-12), least(rate(1, costs.Copy), n.Network, n.Disk),
		use{files, 1}, use{c.read, 1}, use{w.cores, costs.Copy})
}

// ensure is Cluster.Ensure of a node.
func (c *cluster) ensure(n *node) {
	switch {
	case c.published:
		c.take(n)
	case c.failures >= failuresShared:
		c.w.failed++
	case c.locked:
		c.wait(n, c.w.site.LockTimeout/fastestLook)
	default:
		c.pull(n)
	}
}

// wait looks at the lock until it is free.
func (c *cluster) wait(n *node, pause time.Duration) {
	c.looks++
	c.w.e.after(c.w.e.between(pause), func() {
		if c.locked {
			c.wait(n, min(pause*3/2, c.w.site.LockTimeout/slowestLook))
			return
		}
		c.ensure(n)
	})
}

func (c *cluster) pull(n *node) {
	c.locked = true
	p := c.w.newPull(c.w.registry, func(ok bool) {
		if !ok {
			c.locked = false
			c.failures++
			c.w.failed++
			return
		}
		c.w.hash(func() {
			c.locked, c.published = false, true
			c.take(n)
		})
	})
	p.flow = func(int) *class { return c.w.pulling }
	p.start()
}

// take copies the image to the node, or leaves it where it is.
func (c *cluster) take(n *node) {
	if c.mount {
		n.mount()
		return
	}
	c.w.copying.add(float64(c.w.image.Squashed), n.mount)
}
