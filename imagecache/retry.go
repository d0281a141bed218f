package imagecache

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"time"
)

const (
	defaultRetries   = 4
	defaultRetryWait = time.Second
	maxRetryWait     = 30 * time.Second
	// maxRetryAfter is how long a host may make us wait before another try. One
	// that asks for more is not asked again.
	maxRetryAfter = 2 * time.Minute
)

// retries says how often and when something is tried again.
type retries struct {
	max  int
	wait time.Duration
}

func (n Network) retries() retries {
	r := retries{n.Retries, n.RetryWait}
	if r.max == 0 {
		r.max = defaultRetries
	}
	if r.wait == 0 {
		r.wait = defaultRetryWait
	}
	return r
}

// backoff is the pause after failure n, counted from 0. It is spread, so that
// a thousand nodes that failed together do not come back together.
func (r retries) backoff(n int) time.Duration {
	d := maxRetryWait
	if n < 20 && r.wait<<n < maxRetryWait {
		d = r.wait << n
	}
	return d/2 + rand.N(d/2+1)
}

// spread is a pause of at least asked. A host that says the same to all who come
// too early does not want them back at the same moment.
func spread(asked time.Duration) time.Duration { return asked + rand.N(asked/2+1) }

// pause waits before the try after failure n, which ended in err. It returns
// false where there is none: too many, too late, or not worth it. When no time
// is left the answer counts that came, which says more than that the time was
// over.
func (r retries) pause(ctx context.Context, n int, err error) bool {
	asked := retryAfterOf(err)
	if n >= r.max || asked > maxRetryAfter || ctx.Err() != nil {
		return false
	}
	d := max(r.backoff(n), spread(asked))
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) <= d {
		return false
	}
	return wait(ctx, d) == nil
}

func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}

// retryAfterOf is how long the host wants to be left alone.
func retryAfterOf(err error) time.Duration {
	var status *statusError
	if errors.As(err, &status) {
		return status.after
	}
	return 0
}

// retryAfter reads the header of that name: seconds, or a date.
func retryAfter(value string, now time.Time) time.Duration {
	if seconds, err := strconv.Atoi(value); err == nil {
		return time.Duration(min(max(seconds, 0), 1<<30)) * time.Second
	}
	if date, err := http.ParseTime(value); err == nil {
		return max(date.Sub(now), 0)
	}
	return 0
}

// worthRetry reports whether try n+1 may end differently: the host is
// overloaded, the connection broke, an address that it redirected to has
// expired. Nobody listening is not among them. A host that is silent is given
// one more chance, as that costs so long.
func worthRetry(err error, n int) bool {
	var status *statusError
	var dns *net.DNSError
	switch {
	case errors.As(err, &status):
		return status.worthRetry()
	case isBroken(err):
		return true
	case errors.As(err, &dns):
		return dns.IsTemporary && !dns.IsNotFound
	}
	return n == 0 && isTimeout(err)
}

func (e *statusError) worthRetry() bool {
	switch e.status {
	case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusInternalServerError, http.StatusBadGateway,
		http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	case http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusGone:
		return e.via != ""
	}
	return false
}

// isBroken reports whether a connection that worked broke off.
func isBroken(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, errStalled) || errors.Is(err, errTooSlow) || isReset(err)
}
