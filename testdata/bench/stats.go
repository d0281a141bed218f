package main

import (
	"math"
	"math/rand/v2"
	"slices"
)

// A Summary is what a report says of a series of measurements, which it has in
// the order of rounds.
type Summary struct {
	N      int       `json:"n"`
	Median float64   `json:"median"`
	P10    float64   `json:"p10"`
	P90    float64   `json:"p90"`
	Values []float64 `json:"values"`
}

func summarize(xs []float64) *Summary {
	s := slices.Sorted(slices.Values(xs))
	return &Summary{N: len(s), Median: quantile(s, 0.5), P10: quantile(s, 0.1), P90: quantile(s, 0.9), Values: xs}
}

// quantile interpolates linearly between the values of a sorted series; 0 for
// an empty one.
func quantile(sorted []float64, q float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	at := q * float64(len(sorted)-1)
	i := int(at)
	if i+1 == len(sorted) {
		return sorted[i]
	}
	return sorted[i] + (at-float64(i))*(sorted[i+1]-sorted[i])
}

func median(xs []float64) float64 { return summarize(xs).Median }

// A pair is one round: what was measured without and with the thing that is
// looked at, one right after the other.
type pair struct{ base, ours float64 }

func split(ps []pair) (base, ours []float64) {
	for _, p := range ps {
		base, ours = append(base, p.base), append(ours, p.ours)
	}
	return base, ours
}

// A statistic compares the two sides of pairs.
type statistic func([]pair) float64

// statistics are those that a line may have, by name.
func statistics() map[string]statistic {
	return map[string]statistic{"ratio": ratio, "difference": difference, "median": middle, "most": largest}
}

// ratio is the median of ours over the median of base.
func ratio(ps []pair) float64 {
	base, ours := split(ps)
	return median(ours) / median(base)
}

// difference is the median of ours less the median of base.
func difference(ps []pair) float64 {
	base, ours := split(ps)
	return median(ours) - median(base)
}

// middle is the median of ours alone.
func middle(ps []pair) float64 {
	_, ours := split(ps)
	return median(ours)
}

// largest is the most that ours came to.
func largest(ps []pair) float64 {
	_, ours := split(ps)
	return slices.Max(ours)
}

// An Interval is one in which a statistic lies with 95 % confidence.
type Interval struct {
	Low  float64 `json:"low"`
	High float64 `json:"high"`
}

const resamples = 2000

// fewest is how many pairs it takes to say anything of an interval: drawn again
// from fewer, it is far too narrow.
const fewest = 5

// bootstrap draws whole rounds with replacement (the percentile bootstrap):
// what disturbed a round disturbed both of its sides. The same pairs give the
// same interval. It is nil with fewer than fewest, and where f has no value.
func bootstrap(ps []pair, f statistic) *Interval {
	if len(ps) < fewest {
		return nil
	}
	random := rand.New(rand.NewPCG(1, 2))
	values := make([]float64, resamples)
	drawn := make([]pair, len(ps))
	for i := range values {
		for j := range drawn {
			drawn[j] = ps[random.IntN(len(ps))]
		}
		values[i] = f(drawn)
	}
	slices.Sort(values)
	in := &Interval{Low: quantile(values, 0.025), High: quantile(values, 0.975)}
	if sum := in.Low + in.High; math.IsNaN(sum) || math.IsInf(sum, 0) {
		return nil
	}
	return in
}
