package devices

import (
	"fmt"
	"path"
	"slices"

	specs "tags.cncf.io/container-device-interface/specs-go"
)

// Edits are what chosen devices change in a container.
type Edits struct {
	Nodes  []Node
	Mounts []specs.Mount
	Env    []string
	Hooks  []specs.Hook
	// Groups are those in which the specs want the user to be.
	Groups []uint32
	// Hidden are device files that the container must not show: of devices that
	// were not chosen, of kinds of which it gets the chosen ones alone.
	Hidden []string
	// Notes are for the user: what specs ask for and Berth does not do.
	Notes []string
}

// A Node is a device file of the machine, or a folder of them, and where the
// container has it.
type Node struct {
	Host, Path string
	Optional   bool // left out if it is missing
}

// Edits collects what a choice stands for: a spec's own edits before those of
// its devices, each once.
func (c *Catalogue) Edits(ch *Choice) *Edits {
	e := new(Edits)
	seen := map[*Spec]bool{}
	for _, name := range ch.Names {
		s, d := c.find(name)
		if !seen[s] {
			seen[s] = true
			e.add(&s.ContainerEdits, s.Path)
		}
		e.add(&d.ContainerEdits, s.Path)
	}
	for _, f := range ch.Files {
		e.Nodes = append(e.Nodes, Node{f, f, slices.Contains(ch.optional, f)})
	}
	e.Env = append(e.Env, ch.Env...)
	e.Notes = append(e.Notes, ch.Notes...)
	e.hide(c, ch)
	return e
}

func (e *Edits) add(from *specs.ContainerEdits, file string) {
	for _, n := range from.DeviceNodes {
		e.addNode(n)
	}
	for _, m := range from.Mounts {
		e.Mounts = append(e.Mounts, *m)
	}
	for _, h := range from.Hooks {
		e.Hooks = append(e.Hooks, *h)
	}
	e.Env = append(e.Env, from.Env...)
	e.Groups = append(e.Groups, from.AdditionalGIDs...)
	if from.IntelRdt != nil {
		e.note("%s: intelRdt is left to the scheduler", file)
	}
	if len(from.NetDevices) > 0 {
		e.note("%s: netDevices are not moved into containers, which have the node's network", file)
	}
}

func (e *Edits) note(format string, args ...any) {
	if text := fmt.Sprintf(format, args...); !slices.Contains(e.Notes, text) {
		e.Notes = append(e.Notes, text)
	}
}

// addNode takes a device of several specs or names once.
func (e *Edits) addNode(n *specs.DeviceNode) {
	node := Node{Host: path.Clean(hostPath(n)), Path: path.Clean(n.Path)}
	if !slices.Contains(e.Nodes, node) {
		e.Nodes = append(e.Nodes, node)
	}
}

func hostPath(n *specs.DeviceNode) string {
	if n.HostPath != "" {
		return n.HostPath
	}
	return n.Path
}

// hide finds the files of governed kinds that were not chosen.
func (e *Edits) hide(c *Catalogue, ch *Choice) {
	for i := range c.Specs {
		s := &c.Specs[i]
		if !slices.Contains(ch.Governed, s.Kind) {
			continue
		}
		e.hideNodes(s.ContainerEdits.DeviceNodes)
		for _, d := range s.Devices {
			e.hideNodes(d.ContainerEdits.DeviceNodes)
		}
	}
}

func (e *Edits) hideNodes(nodes []*specs.DeviceNode) {
	for _, n := range nodes {
		p := path.Clean(hostPath(n))
		chosen := slices.ContainsFunc(e.Nodes, func(c Node) bool { return c.Host == p })
		if !chosen && !slices.Contains(e.Hidden, p) {
			e.Hidden = append(e.Hidden, p)
		}
	}
}
