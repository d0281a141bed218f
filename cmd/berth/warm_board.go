package main

import (
	"fmt"
	"sync"
	"time"
)

// A board shows how nodes get on: a bar and the busy ones on a terminal, a line
// for each change elsewhere.
type board struct {
	mu    sync.Mutex
	view  *progressView
	nodes []warmedNode // the caller's, which change
	said  []string
	none  bool
}

// maxBoard is how many nodes have a line of their own.
const maxBoard = 8

func (s *session) newBoard(nodes []warmedNode) *board {
	return &board{view: s.newProgress("nodes"), nodes: nodes, said: make([]string, len(nodes)), none: s.progress == "none"}
}

// changed shows what is new.
func (b *board) changed() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.none {
		return
	}
	if b.view.bar {
		b.draw()
		return
	}
	for i, n := range b.nodes {
		if text := n.String(); text != b.said[i] {
			b.said[i] = text
			fmt.Fprintf(b.view.out, "berth: %s\n", text)
		}
	}
}

func (b *board) draw() {
	ended, images, of := 0, 0, 0
	var lines []string
	for _, n := range b.nodes {
		if n.ended() {
			ended++
		} else if n.State == nodeRunning && len(lines) < maxBoard {
			lines = append(lines, "  "+n.String())
		}
		if n.Report != nil {
			images, of = images+n.Report.Ready, of+n.Report.Of
		}
	}
	total := int64(max(len(b.nodes), 1))
	lines = append(lines, fmt.Sprintf("nodes %s %d of %d  images %d of %d  %s",
		drawBar(int64(ended), total), ended, len(b.nodes), images, of, time.Now().Format(time.TimeOnly)))
	b.view.draw(lines)
}

func (b *board) close() { b.view.Close() }
