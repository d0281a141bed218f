package store

import (
	"context"
	"fmt"
	"os"
	"time"
)

// patiently calls f and stops waiting for it after limit, or with ctx: where a
// server is down, system calls hang instead of failing. The thread that hangs
// in f is then left alone; the process ends soon anyway.
func patiently[T any](ctx context.Context, limit time.Duration, f func() (T, error)) (T, error) {
	type answer struct {
		value T
		err   error
	}
	done := make(chan answer, 1)
	go func() {
		v, err := f()
		done <- answer{v, err}
	}()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	var none T
	select {
	case a := <-done:
		return a.value, a.err
	case <-ctx.Done():
		return none, context.Cause(ctx)
	case <-timer.C:
		return none, fmt.Errorf("no answer within %s: %w", limit, os.ErrDeadlineExceeded)
	}
}

// patiently is the function with the cluster's own limit.
func (c *Cluster) patiently(ctx context.Context, f func() error) error {
	_, err := patiently(ctx, c.opts.Patience, func() (struct{}, error) { return struct{}{}, f() })
	return err
}
