package soak

import (
	"testing"
)

// TestPlan: a plan is its seed's alone, and in the course of its rounds every
// kind of fault, image and shape has its turn.
func TestPlan(t *testing.T) {
	seen := map[string]bool{}
	rounds := len(Kinds)/faultsOfRound + 1
	for n := range rounds {
		a, b := Plan(7, n), Plan(7, n)
		if a.String() != b.String() {
			t.Errorf("round %d is planned in two ways:\n%s\n%s", n, a, b)
		}
		if a.String() == Plan(8, n).String() {
			t.Errorf("round %d of two seeds is the same", n)
		}
		for _, f := range a.Faults {
			seen[f.Kind] = true
			if k := (Happened{Fault: f}).kind(); k.OfNode != (f.Node != "") || k.OfImage != (f.Image != "") {
				t.Errorf("%s is of the wrong things", f)
			}
		}
		for _, j := range a.Jobs {
			seen[string(j.Shape)], seen[j.Image] = true, true
			if owner := Images[j.Image].Owner; owner != "" && owner != j.User {
				t.Errorf("%s may not use its image", j)
			}
		}
	}
	for _, k := range Kinds {
		if !seen[k.Name] {
			t.Errorf("%q does not come within %d rounds", k.Name, rounds)
		}
	}
	for name := range Images {
		if !seen[name] {
			t.Errorf("no job has %s", name)
		}
	}
	for _, shape := range []Shape{Batch, Step, Steps} {
		if !seen[string(shape)] {
			t.Errorf("no job is a %s", shape)
		}
	}
}
