package imagecache

import (
	"context"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// busy makes a registry answer 429 so many times, with Retry-After.
func busy(reg *testRegistry, times int64, after string) *atomic.Int64 {
	var refused atomic.Int64
	reg.onRequest(func(w http.ResponseWriter, req *http.Request) bool {
		if !strings.Contains(req.URL.Path, "/manifests/") || refused.Load() == times {
			return false
		}
		refused.Add(1)
		w.Header().Set("Retry-After", after)
		w.WriteHeader(http.StatusTooManyRequests)
		return true
	})
	return &refused
}

// With too little time left for another try, the user reads what the registry
// answered, not that the time was over, and reads it at once.
func TestNoTimeForAnotherTry(t *testing.T) {
	reg := newTestRegistry(t)
	busy(reg, 100, "30")
	ctx, cancel := context.WithTimeout(testContext(t), 20*time.Second)
	defer cancel()
	_, err := Resolve(ctx, mustParse(t, reg.host+"/x:1"), Platform{}, Network{})
	if err == nil || !strings.Contains(err.Error(), "429 Too Many Requests") {
		t.Errorf("%v", err)
	}
	if ctx.Err() != nil {
		t.Error("it took all of the time")
	}
}

// A registry that asks for patience gets it.
func TestRetryAfter(t *testing.T) {
	reg := newTestRegistry(t)
	refused := busy(reg, 1, "2")
	begin := time.Now()
	_, err := Resolve(testContext(t), mustParse(t, reg.host+"/x:1"), Platform{}, Network{})
	if err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("%v", err)
	}
	if took := time.Since(begin); refused.Load() != 1 || took < 2*time.Second {
		t.Errorf("asked again after %v", took)
	}
}

// Those who were sent away together come back one after the other, none early.
func TestRetryAfterIsSpread(t *testing.T) {
	const asked, count = time.Minute, 1000
	first, last := 10*asked, time.Duration(0)
	for range count {
		d := spread(asked)
		first, last = min(first, d), max(last, d)
	}
	if first < asked || last > asked*3/2 || last-first < asked/4 {
		t.Errorf("%d pauses for %v are from %v to %v", count, asked, first, last)
	}
	if d := spread(0); d != 0 {
		t.Errorf("%v, though nothing was asked", d)
	}
}

func TestRetryAfterHeader(t *testing.T) {
	now := time.Date(2026, 10, 21, 7, 28, 0, 0, time.UTC)
	for value, want := range map[string]time.Duration{
		"": 0, "3": 3 * time.Second, "-5": 0, "99999999999": 1 << 30 * time.Second, "soon": 0,
		"Wed, 21 Oct 2026 07:28:30 GMT": 30 * time.Second, "Wed, 21 Oct 2026 07:27:00 GMT": 0,
	} {
		if got := retryAfter(value, now); got != want {
			t.Errorf("%q: %v, want %v", value, got, want)
		}
	}
}

// A registry that wants to be left alone for longer than is sensible is not
// asked again, and the user reads for how long.
func TestRetryAfterTooLong(t *testing.T) {
	reg := newTestRegistry(t)
	refused := busy(reg, 100, "3600")
	_, err := Resolve(testContext(t), mustParse(t, reg.host+"/x:1"), Platform{}, Network{})
	if err == nil || !strings.Contains(err.Error(), "left alone for 1h0m0s") || refused.Load() != 1 {
		t.Errorf("asked %d times: %v", refused.Load(), err)
	}
}

func TestBackoffGrowsAndIsSpread(t *testing.T) {
	r := retries{max: 4, wait: time.Second}
	seen := map[time.Duration]bool{}
	for n, seconds := range []int{1, 2, 4, 8, 16, 30, 30} {
		high := time.Duration(seconds) * time.Second
		for range 50 {
			d := r.backoff(n)
			if d < high/2 || d > high {
				t.Errorf("after failure %d: %v, want up to %v", n, d, high)
			}
			seen[d] = true
		}
	}
	if len(seen) < 300 {
		t.Errorf("%d different pauses out of 350", len(seen))
	}
}
