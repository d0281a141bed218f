package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// summaries says of nodes what their lines do.
func summaries(nodes []warmedNode) string {
	var b strings.Builder
	for _, n := range nodes {
		b.WriteString(n.State + " " + n.Node + " " + n.partition + " " + n.Reason + "\n")
	}
	return b.String()
}

func TestParseSinfo(t *testing.T) {
	got := summaries(parseSinfo("n1|cpu|idle|none\nn1|all|idle|none\nn2|cpu|allocated|none\nn3|cpu|down*|Not responding\nn4|gpu|drained|fan | noise\nn5|gpu|idle~|none\nn6|gpu|mixed|\nnonsense\n"))
	want := `waiting n1 cpu 
waiting n2 cpu 
skipped n3 cpu down*, Not responding
skipped n4 gpu drained, fan | noise
skipped n5 gpu idle~
waiting n6 gpu 
`
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestParsePbsnodes(t *testing.T) {
	got := summaries(parsePbsnodes("n1\n     Mom = n1.example\n     state = free\n     pcpus = 8\n\nn2\n     state = job-busy\n\nn3\n     state = state-unknown,down\n\nn4\n     state = offline\n"))
	want := "waiting n1  \nwaiting n2  \nskipped n3  state-unknown,down\nskipped n4  offline\n"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// TestFollow: what Slurm and the jobs say becomes the nodes' states.
func TestFollow(t *testing.T) {
	nodes := []warmedNode{
		{Node: "n1", Job: "1", State: nodeWaiting},
		{Node: "n2", Job: "2", State: nodeWaiting},
		{Node: "n3", Job: "3", State: nodeWaiting},
		{Node: "n4", Job: "4", State: nodeRunning},
		{Node: "n5", Job: "5", State: nodeWaiting},
		{Node: "n6", Job: "6", State: nodeRunning},
		{Node: "n7", State: nodeSkipped, Reason: "down"},
		{Node: "n8", Job: "8", State: nodeWaiting},
	}
	follow(nodes, `1|COMPLETED|None|{"of":2,"ready":2,"ended":true}
2|PENDING|Resources|(null)
3|RUNNING|None|{"of":2,"ready":1,"now":"x"}
5|FAILED|NonZeroExitCode|{"of":2,"ready":1,"failed":["b: 404 | gone"],"ended":true}
6|NODE_FAIL|NonZeroExitCode|not a report
8|CANCELLED|None|{"of":2,"ready":0,"ended":false}
77|FAILED|None|
`)
	want := `ready n1  
waiting n2  Resources
running n3  
failed n4  gone (Slurm has forgotten the job)
partial n5  failed
failed n6  node_fail (NonZeroExitCode)
skipped n7  down
failed n8  cancelled (None)
`
	if diff := cmp.Diff(want, summaries(nodes)); diff != "" {
		t.Error(diff)
	}
	if r := nodes[4].Report; r == nil || len(r.Failed) != 1 {
		t.Errorf("%+v", r)
	}
	if nodes[1].ended() || nodes[2].ended() || !nodes[3].ended() {
		t.Error("who has ended")
	}
	// A job that Slurm has forgotten since its last word that all is there.
	nodes[3] = warmedNode{Node: "n4", Job: "4", State: nodeRunning, Report: &nodeReport{Of: 2, Ready: 2, Ended: true}}
	if follow(nodes, ""); nodes[3].State != nodeReady {
		t.Errorf("%+v", nodes[3])
	}
}

// TestWarmScript: the job has all that it needs, and no word of a list becomes
// one of the shell's.
func TestWarmScript(t *testing.T) {
	c := &warmCmd{warmLimits: warmLimits{Rate: 1e6, MaxLoad: 0.5, Parallel: 2}}
	got := c.script("/opt/ber'th/bin/berth", []byte("[[image]]\nname = \"$(touch /tmp/x)\"\n"), 3, 0)
	for _, want := range []string{
		`exec nsenter --target 1 --mount -- '/opt/ber'\''th/bin/berth' '--progress=none' 'warm'`, `'--start=3'`, `'--rate=1000000B'`, `'--max-load=0.5'`,
		"<<'" + listEnd + "'\n[[image]]\nname = \"$(touch /tmp/x)\"\n" + listEnd + "\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %s in\n%s", want, got)
		}
	}
}
