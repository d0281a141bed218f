package simulate

// cached is what a mirror has of a layer.
type cached int

const (
	missing cached = iota
	arriving
	present
)

// pullFromMirror is a node's pull from the mirror, which gets from the registry
// what it does not have.
func (w *world) pullFromMirror(done func(ok bool)) {
	p := w.newPull(w.mirror, done)
	relayed := make([]bool, w.image.Layers)
	p.begun = func(layer int) { relayed[layer] = w.fetch(layer) }
	p.flow = func(layer int) *class {
		switch {
		case relayed[layer]:
			return w.relayed
		case w.cache[layer] == arriving:
			return w.following
		}
		return w.fromMirror
	}
	w.enterMirror(p)
}

// enterMirror has the mirror ask for the manifest and the config once, or, if it
// relays, for each node until it has them.
func (w *world) enterMirror(p *pull) {
	if w.manifest == present || w.manifest == arriving && !w.site.Mirror.Relays {
		p.start()
		return
	}
	w.manifest = arriving
	w.registry.enter(func(ok bool) {
		if ok {
			w.manifest = present
		}
		p.start()
	})
}

// fetch begins what the mirror does for a request for a layer, and says whether
// it is served from the registry, for this node alone.
func (w *world) fetch(layer int) bool {
	switch {
	case w.cache[layer] == present, w.cache[layer] == arriving && !w.site.Mirror.Relays:
		return false
	}
	if w.cache[layer] == missing {
		w.cache[layer] = arriving
		w.registry.traffic.Requests++
		w.filling.add(w.layerBytes, func() { w.cache[layer] = present })
	}
	if w.site.Mirror.Relays {
		w.registry.traffic.Requests++
	}
	return w.site.Mirror.Relays
}
