package imagecache

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
	"time"
)

// TestThrottle: two readers share a rate, and end with their context.
func TestThrottle(t *testing.T) {
	th := newThrottle(1 << 20)
	began := time.Now()
	data := make([]byte, 100<<10)
	ends := make(chan error, 2)
	for range 2 {
		go func() {
			got, err := io.ReadAll(th.reader(t.Context(), bytes.NewReader(data)))
			if err == nil && len(got) != len(data) {
				err = io.ErrUnexpectedEOF
			}
			ends <- err
		}()
	}
	for range 2 {
		if err := <-ends; err != nil {
			t.Error(err)
		}
	}
	// Never faster than the rate; how much slower is the machine's affair.
	if took := time.Since(began); took < 150*time.Millisecond {
		t.Errorf("200 KiB at 1 MiB/s took %v", took)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	slow := newThrottle(1)
	if _, err := io.ReadAll(slow.reader(ctx, bytes.NewReader(data))); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled one: %v", err)
	}
	if r := bytes.NewReader(nil); newThrottle(0).reader(t.Context(), r) != io.Reader(r) {
		t.Error("without a rate there is nothing between")
	}
}
