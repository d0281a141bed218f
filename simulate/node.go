package simulate

// A node starts, gets the image, and has its task run.
type node struct{ w *world }

func (n *node) start() {
	n.w.before.add(n.w.site.Costs.Before, n.get)
}

func (n *node) get() {
	switch w := n.w; {
	case w.cluster != nil:
		w.cluster.ensure(n)
	case w.mirror != nil:
		w.pullFromMirror(n.converted)
	default:
		p := w.newPull(w.registry, n.converted)
		p.flow = func(int) *class { return w.pulling }
		p.start()
	}
}

// converted is after the last layer: the file is hashed, and published.
func (n *node) converted(ok bool) {
	if !ok {
		n.w.failed++
		return
	}
	n.w.hash(n.mount)
}

// hash is what one conversion ends with.
func (w *world) hash(done func()) {
	w.converts++
	w.hashing.add(w.site.Costs.Hash*float64(w.image.Squashed), done)
}

// mount is all that follows once the image is at hand.
func (n *node) mount() {
	n.w.after.add(n.w.site.Costs.After, func() { n.w.ready = append(n.w.ready, n.w.e.now) })
}
