package cluster

import "context"

// PowerOff stops a node as a power cut does: its processes, memory, mounts and
// network are gone; its disk stays, with all that was written.
func (c *Cluster) PowerOff(node string) { c.power("off", node) }

// PowerOn boots a node that is off: first /var/rc.local of its own disk, if
// there is such a program, then slurmd.
func (c *Cluster) PowerOn(node string) { c.power("on", node) }

func (c *Cluster) power(how, node string) {
	c.t.Helper()
	if r := c.call(context.Background(), nil, "power", how, node); r.Code != 0 {
		c.t.Fatalf("cluster power %s %s: %v", how, node, r)
	}
}
