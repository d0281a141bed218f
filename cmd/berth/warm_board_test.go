package main

import (
	"bytes"
	"strings"
	"testing"
)

// TestBoard: a terminal gets the nodes that run and one bar, which replace each
// other; a file a line for each change.
func TestBoard(t *testing.T) {
	nodes := []warmedNode{
		{Node: "n1", State: nodeReady, Report: &nodeReport{Of: 2, Ready: 2}},
		{Node: "n2", State: nodeRunning, Report: &nodeReport{Of: 2, Ready: 1, Now: "quay.io/x\x1b[2J"}},
		{Node: "n3", State: nodeWaiting, Reason: "Resources"},
		{Node: "n4", State: nodeSkipped, Reason: "down*"},
	}
	show := func(bar bool, times int) string {
		var out bytes.Buffer
		b := &board{view: &progressView{out: &out, bar: bar, width: func() int { return 70 }}, nodes: nodes, said: make([]string, len(nodes))}
		for range times {
			b.changed()
		}
		b.close()
		return out.String()
	}
	bar := show(true, 2)
	if !strings.Contains(bar, "nodes [############............] 2 of 4  images 3 of 4") || strings.Count(bar, "  running   node n2: 1 of 2 images") != 2 || strings.Contains(bar, "n3") {
		t.Errorf("%q", bar)
	}
	if strings.Contains(bar, "x\x1b[2J") || !strings.HasSuffix(bar, "\x1b[1A\r\x1b[J") {
		t.Errorf("what others say moves the cursor, or lines are left: %q", bar)
	}
	for line := range strings.SplitSeq(strings.NewReplacer("\r\x1b[J", "\n", "\x1b[1A", "").Replace(bar), "\n") {
		if len(line) > 69 {
			t.Errorf("it would wrap: %q", line)
		}
	}
	if lines := show(false, 3); strings.Count(lines, "\n") != len(nodes) || !strings.Contains(lines, "berth: skipped   node n4: down*\n") {
		t.Errorf("%q", lines)
	}
}
