package imagecache

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// inOrder are tags from the oldest to the newest, names that are no versions
// first, as they come last in a list that begins with the newest.
var inOrder = []string{
	"stable", "main", "latest", "develop",
	"0.1.18--h50ea8bc_13", "0.1.19--1", "0.1.19--h96c455f_9",
	"1.0rc1", "1.0-rc2", "1.0", "1.0-alpine", "1.0.1",
	"v1.2", "1.3.1--0", "1.3.1--h9071d68_10", "1.9--h8571acd_11", "1.9--h91753b0_8x",
	"1.10--h2e538c0_3", "1.17--h00cdaf9_0", "1.17--hd87286a_1", "1.17--hd87286a_2", "1.17--h50ea8bc_10",
	"1.17.1", "1.20", "20240101", "20240102.1",
}

func TestCompareTags(t *testing.T) {
	shuffled := slices.Clone(inOrder)
	r := rand.New(rand.NewPCG(1, 2))
	r.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
	slices.SortFunc(shuffled, CompareTags)
	if diff := cmp.Diff(inOrder, shuffled); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// FuzzCompareTags holds the order to be one: sorting relies on it.
func FuzzCompareTags(f *testing.F) {
	for i := range len(inOrder) - 2 {
		f.Add(inOrder[i], inOrder[i+1], inOrder[i+2])
	}
	f.Fuzz(func(t *testing.T, a, b, c string) {
		if CompareTags(a, b) != -CompareTags(b, a) {
			t.Errorf("%q and %q", a, b)
		}
		if CompareTags(a, b) <= 0 && CompareTags(b, c) <= 0 && CompareTags(a, c) > 0 {
			t.Errorf("%q, %q and %q", a, b, c)
		}
		if (CompareTags(a, b) == 0) != (a == b) {
			t.Errorf("%q is %q", a, b)
		}
	})
}
