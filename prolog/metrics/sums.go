package metrics

import "math"

// Sums are what was counted since the node's store was made. Their JSON is
// metrics.json.
type Sums struct {
	// Folded is the number of the last part of the spool that is in them.
	Folded   int                   `json:"folded"`
	Accounts map[string]*Account   `json:"accounts"`
	Phases   map[string]*Histogram `json:"phases"`

	Evicted      int64 `json:"evicted"`
	EvictedBytes int64 `json:"evicted_bytes"`
}

// An Account is what was counted for one account of the scheduler's.
type Account struct {
	Hits       int64            `json:"hits"`
	Misses     int64            `json:"misses"`
	Containers int64            `json:"containers"`
	Pulled     int64            `json:"pulled_bytes"`
	Waited     float64          `json:"waited_seconds"`
	Failures   map[string]int64 `json:"failures"`
}

// A Histogram counts durations up to each of bounds; the last count is of
// longer ones.
type Histogram struct {
	Counts []int64 `json:"counts"`
	Sum    float64 `json:"sum"`
}

// bounds returns the upper ends of a histogram's buckets, in seconds.
func bounds() []float64 {
	return []float64{0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800}
}

const (
	// maxAccounts bounds how many labels Prometheus gets from accounts: where
	// Slurm does not check them, users name any. Others is the rest's label.
	maxAccounts = 200
	others      = "(others)"
	// maxPhases bounds the phases, of which Berth has fewer.
	maxPhases = 20
	maxCauses = 40
	maxLabel  = 128 // bytes of a label
)

func (s *Sums) add(e Event) {
	a := s.account(e.Account)
	if e.Hit {
		a.Hits++
	}
	if e.Miss {
		a.Misses++
	}
	if e.Container {
		a.Containers++
	}
	if e.Failure != "" && (len(a.Failures) < maxCauses || a.Failures[e.Failure] > 0) {
		a.Failures[e.Failure]++
	}
	a.Pulled = plus(a.Pulled, e.Pulled)
	if isDuration(e.Waited) {
		a.Waited += e.Waited
	}
	for phase, seconds := range e.Seconds {
		s.observe(phase, seconds)
	}
	s.Evicted = plus(s.Evicted, int64(e.Evicted))
	s.EvictedBytes = plus(s.EvictedBytes, e.EvictedBytes)
}

// plus adds what is not negative; a sum stays at the largest number there is.
func plus(sum, n int64) int64 {
	if n = max(n, 0); sum > math.MaxInt64-n {
		return math.MaxInt64
	}
	return sum + n
}

func (s *Sums) account(name string) *Account {
	if len(name) > maxLabel {
		name = others
	}
	if s.Accounts[name] == nil && len(s.Accounts) >= maxAccounts {
		name = others
	}
	a := s.Accounts[name]
	if a == nil {
		a = &Account{}
		s.Accounts[name] = a
	}
	if a.Failures == nil {
		a.Failures = map[string]int64{}
	}
	return a
}

func (s *Sums) observe(phase string, seconds float64) {
	h := s.Phases[phase]
	if !isDuration(seconds) || h == nil && len(s.Phases) >= maxPhases {
		return
	}
	if h == nil || len(h.Counts) != len(bounds())+1 {
		h = &Histogram{Counts: make([]int64, len(bounds())+1)}
		s.Phases[phase] = h
	}
	i := 0
	for ; i < len(bounds()) && seconds > bounds()[i]; i++ {
	}
	h.Counts[i]++
	h.Sum += seconds
}

// isDuration refuses what would spoil a sum for ever.
func isDuration(s float64) bool { return s >= 0 && s < 1e9 && !math.IsNaN(s) }
