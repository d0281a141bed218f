package imagecache

import (
	"context"
	"io"
	"sync"
	"time"
)

// A throttle lets the bytes of all layers together pass at a rate. It stands
// above what watches registries for crawling: what waits here is their bytes,
// and so, once buffers are full, they.
type throttle struct {
	rate int64 // bytes per second

	mu   sync.Mutex
	free time.Time // when all that was let pass has had its time
}

// newThrottle returns nil where there is no bound.
func newThrottle(rate int64) *throttle {
	if rate <= 0 {
		return nil
	}
	return &throttle{rate: rate}
}

// reader slows r down. A nil throttle does not.
func (t *throttle) reader(ctx context.Context, r io.Reader) io.Reader {
	if t == nil {
		return r
	}
	return &throttled{ctx: ctx, in: r, by: t}
}

// take returns how long n bytes have to wait.
func (t *throttle) take(n int) time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	if t.free.Before(now) {
		t.free = now
	}
	t.free = t.free.Add(time.Duration(float64(n) / float64(t.rate) * float64(time.Second)))
	return t.free.Sub(now)
}

type throttled struct {
	ctx context.Context
	in  io.Reader
	by  *throttle
}

// Read implements io.Reader. It reads little at once, so that no wait is long.
func (r *throttled) Read(p []byte) (int, error) {
	const atOnce = 16 << 10
	n, err := r.in.Read(p[:min(len(p), atOnce)])
	wait := time.NewTimer(r.by.take(n))
	defer wait.Stop()
	select {
	case <-wait.C:
		return n, err
	case <-r.ctx.Done():
		return n, context.Cause(r.ctx)
	}
}
