package main

import (
	"math"
	"math/rand/v2"
	"testing"
)

func TestQuantile(t *testing.T) {
	for _, tc := range []struct {
		xs   []float64
		q    float64
		want float64
	}{
		{nil, 0.5, 0},
		{[]float64{7}, 0.9, 7},
		{[]float64{1, 2, 3}, 0.5, 2},
		{[]float64{1, 2, 3, 4}, 0.5, 2.5},
		{[]float64{0, 10}, 0.1, 1},
		{[]float64{1, 2, 3}, 1, 3},
	} {
		if got := quantile(tc.xs, tc.q); math.Abs(got-tc.want) > 1e-9 {
			t.Errorf("quantile(%v, %v) = %v, want %v", tc.xs, tc.q, got, tc.want)
		}
	}
}

// Of many series of which the true ratio is known, the 95 % interval must hold
// it in about 95 of 100.
func TestBootstrapCovers(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	const series, truth = 100, 1.1
	held := 0
	for range series {
		ps := make([]pair, 40)
		for i := range ps {
			ps[i] = pair{base: 1 + 0.1*random.NormFloat64(), ours: truth * (1 + 0.1*random.NormFloat64())}
		}
		if in := bootstrap(ps, ratio); in.Low <= truth && truth <= in.High {
			held++
		}
	}
	if held < series*88/100 || held == series {
		t.Errorf("%d of %d intervals hold the true ratio", held, series)
	}
}

// Of a few values nothing is said with confidence.
func TestNoIntervalOfAFew(t *testing.T) {
	if in := bootstrap(make([]pair, fewest-1), middle); in != nil {
		t.Errorf("got %v", in)
	}
	if in := bootstrap(make([]pair, fewest), ratio); in != nil {
		t.Errorf("of ratios to nothing: %v", in)
	}
}

// Every variant comes first and last equally often, and none is left out.
func TestOrderIsFair(t *testing.T) {
	vs := []Variant{{Name: "a"}, {Name: "b"}, {Name: "c"}}
	first, last := map[string]int{}, map[string]int{}
	const rounds = 12
	for round := range rounds {
		o := order(vs, round)
		seen := map[string]bool{}
		for _, v := range o {
			seen[v.Name] = true
		}
		if len(seen) != len(vs) {
			t.Fatalf("round %d: %v", round, o)
		}
		first[o[0].Name]++
		last[o[len(o)-1].Name]++
	}
	for _, v := range vs {
		if first[v.Name] != rounds/len(vs) || last[v.Name] != rounds/len(vs) {
			t.Errorf("%s: first %d times, last %d times", v.Name, first[v.Name], last[v.Name])
		}
	}
}

// A failed run takes its round out of the comparison, and is counted. Rounds that
// a side does not have are not.
func TestPairsDropFailedRounds(t *testing.T) {
	samples := []Sample{
		{Variant: "bare", Round: 0, Wall: 1},
		{Variant: "ours", Round: 0, Wall: 2},
		{Variant: "bare", Round: 1, Wall: 1, Code: 139, Out: "crashed"},
		{Variant: "ours", Round: 1, Wall: 2},
		{Variant: "bare", Round: 2, Wall: 3},
		{Variant: "ours", Round: 2, Wall: 6},
		{Variant: "bare", Round: 3, Wall: 9},
		{Variant: "other", Round: 0, Code: 1},
	}
	ps, dropped, failed := pairs(samples, "bare", "ours", wall)
	if len(ps) != 2 || dropped != 1 || failed != "bare ended with 139: crashed" || ratio(ps) != 2 {
		t.Errorf("%v, %d dropped: %s", ps, dropped, failed)
	}
}
