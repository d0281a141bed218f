package simulate

// parallel is how many layers a node transfers at once.
const parallel = 3

// A pull is one node's transfer of an image. Layers are asked for some ahead and
// converted in their order.
type pull struct {
	w      *world
	from   *server
	flow   func(layer int) *class // what a layer's bytes go through
	begun  func(layer int)
	done   func(ok bool)
	asked  int
	open   []bool // the layers that are being answered
	at     int    // the layer being read
	moving bool
	failed bool
}

func (w *world) newPull(from *server, done func(ok bool)) *pull {
	return &pull{w: w, from: from, begun: func(int) {}, done: done, open: make([]bool, w.image.Layers)}
}

func (p *pull) start() {
	p.from.enter(func(ok bool) {
		if !ok {
			p.fail()
			return
		}
		for range min(parallel, p.w.image.Layers) {
			p.ask()
		}
	})
}

func (p *pull) fail() {
	if !p.failed {
		p.failed = true
		p.done(false)
	}
}

// ask asks for the next layer.
func (p *pull) ask() {
	layer := p.asked
	if layer >= p.w.image.Layers {
		return
	}
	p.asked++
	p.from.ask(false, func(ok bool) {
		if !ok {
			p.fail()
			return
		}
		p.open[layer] = true
		p.begun(layer)
		p.move()
	})
}

// move reads the next layer, when it is there and the one before has ended.
func (p *pull) move() {
	if p.failed || p.moving || !p.open[p.at] {
		return
	}
	p.moving = true
	p.flow(p.at).add(p.w.layerBytes, p.moved)
}

func (p *pull) moved() {
	p.moving = false
	p.at++
	if p.at == p.w.image.Layers {
		p.done(true)
		return
	}
	p.ask()
	p.move()
}
