package imagecache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

const (
	// aheadBytes is how much of each layer may wait in memory to be read.
	aheadBytes = 4 << 20
	aheadChunk = 64 << 10
	// resumeProgress is how much has to arrive, in bytes, before a transfer
	// that breaks off again is not held to be hopeless.
	resumeProgress = 1 << 20
)

// A feed brings one layer from a registry to the converter that reads it,
// without the disk. It runs ahead as far as memory allows; then the registry
// has to wait.
type feed struct {
	chunks chan []byte
	err    error // why there are no more; read after chunks is closed
	rest   []byte
}

// Read implements io.Reader.
func (f *feed) Read(p []byte) (int, error) {
	for len(f.rest) == 0 {
		chunk, ok := <-f.chunks
		if !ok {
			return 0, f.err
		}
		f.rest = chunk
	}
	n := copy(p, f.rest)
	f.rest = f.rest[n:]
	return n, nil
}

// next returns what has arrived next, for who does not call Read. The error is
// io.EOF at the layer's end.
func (f *feed) next(ctx context.Context) ([]byte, error) {
	select {
	case chunk, ok := <-f.chunks:
		if !ok {
			return nil, f.err
		}
		return chunk, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// feedLayers starts the transfer of all layers to memory, in their order, and
// of not more than parallel at once: a layer counts from its start until its
// reader is closed.
func (l *layers) feedLayers(ctx context.Context, parallel int) {
	l.slots = make(chan struct{}, parallel)
	l.feeds = make([]*feed, len(l.descs))
	for i := range l.feeds {
		l.feeds[i] = &feed{chunks: make(chan []byte, aheadBytes/aheadChunk)}
	}
	l.wg.Go(func() {
		var running sync.WaitGroup
		defer running.Wait()
		for i, f := range l.feeds {
			select {
			case l.slots <- struct{}{}:
				running.Go(func() { l.feed(ctx, i, f) })
			case <-ctx.Done():
				f.err = context.Cause(ctx)
				close(f.chunks)
			}
		}
	})
}

// feed transfers layer i.
func (l *layers) feed(ctx context.Context, i int, f *feed) {
	f.err = l.fill(ctx, i, f)
	if f.err != io.EOF {
		f.err = &transferError{i + 1, len(l.descs), f.err}
	}
	l.done.Store(time.Now().UnixNano())
	close(f.chunks)
}

// fill reads layer i, verified, and hands it over. Its error is never nil.
func (l *layers) fill(ctx context.Context, i int, f *feed) error {
	r, end, err := l.arriving(ctx, i)
	if err != nil {
		return err
	}
	defer end()
	for {
		chunk := make([]byte, aheadChunk)
		n, err := readFull(r, chunk)
		select {
		case f.chunks <- chunk[:n]:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if err != nil {
			return err
		}
	}
}

// readFull is io.ReadFull, but the error is the reader's own.
func readFull(r io.Reader, into []byte) (n int, err error) {
	for n < len(into) && err == nil {
		var m int
		m, err = r.Read(into[n:])
		n += m
	}
	return n, err
}

// openFeed is Open for layers that come straight from a registry.
func (l *layers) openFeed(i int) (io.ReadCloser, error) {
	f := l.feeds[i]
	return l.unpacked(counted{f, &l.compressed}, readCloser{f, l.releaseSlot}, i)
}

// releaseSlot lets the next layer begin. One that never began has no slot.
func (l *layers) releaseSlot() error {
	select {
	case <-l.slots:
	default:
	}
	return nil
}

// A transferError says that a layer did not arrive, while it was read.
type transferError struct {
	layer, layers int
	err           error
}

// Error implements error.
func (e *transferError) Error() string {
	return fmt.Sprintf("transfer layer %d of %d: %v", e.layer, e.layers, e.err)
}

// Unwrap returns the cause.
func (e *transferError) Unwrap() error { return e.err }

// resumed reads a blob of a registry, and goes on where it was when the
// transfer breaks off, with another host if the first one was a mirror.
type resumed struct {
	ctx  context.Context //nolint:containedctx // lives as long as the transfer of one layer
	src  *registrySource
	desc v1.Descriptor

	body  *served
	n     int64
	tries int   // in vain, in a row
	mark  int64 // n when it broke off last
	by    []*endpoint
}

// Read implements io.Reader.
func (r *resumed) Read(p []byte) (int, error) {
	for {
		n, err := r.readOnce(p)
		r.n += int64(n)
		if err == nil || err == io.EOF || r.ctx.Err() != nil {
			return n, err
		}
		if giveUp := r.breakOff(err); giveUp != nil {
			return n, giveUp
		}
		if n > 0 {
			return n, nil
		}
	}
}

// readOnce reads from the transfer at hand, or begins one. A body that ends
// early without having said so broke off.
func (r *resumed) readOnce(p []byte) (int, error) {
	if r.body == nil {
		if err := r.open(); err != nil {
			return 0, &openError{err}
		}
	}
	n, err := r.body.Read(p)
	if err == io.EOF && !r.body.counted && r.n+int64(n) < r.desc.Size {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// An openError is a blob that could not be opened. That has been tried often
// enough.
type openError struct{ error }

// Unwrap returns the cause.
func (e *openError) Unwrap() error { return e.error }

func (r *resumed) open() error {
	var body io.ReadCloser
	var err error
	if r.n > 0 {
		body, err = r.src.blobFrom(r.ctx, r.desc, r.n)
	}
	if r.n == 0 || isRangeRefused(err) {
		if body, err = r.src.blob(r.ctx, r.desc); err == nil {
			err = skip(body, r.n)
		}
	}
	if err != nil {
		return err
	}
	r.body = body.(*served)
	if !slices.Contains(r.by, r.body.by) {
		r.by = append(r.by, r.body.by)
	}
	return nil
}

// blame says that the blob is another than was named, and from whom it came.
func (r *resumed) blame(what, want, got string) error {
	return r.src.distrust(what, want, got, r.by...)
}

// isRangeRefused reports whether the registry sends blobs as a whole only.
func isRangeRefused(err error) bool {
	var status *statusError
	return errors.As(err, &status) && status.status == http.StatusRequestedRangeNotSatisfiable
}

// skip reads what is there already. It closes body on error.
func skip(body io.ReadCloser, n int64) error {
	if _, err := io.CopyN(io.Discard, body, n); err != nil {
		return errors.Join(err, body.Close())
	}
	return nil
}

// breakOff prepares another try, or says why there is none.
func (r *resumed) breakOff(err error) error {
	var open *openError
	if errors.As(err, &open) {
		return open.error
	}
	by := r.body.by
	_ = r.Close()
	if r.n-r.mark >= resumeProgress {
		r.tries = 0
	}
	r.mark = r.n
	by.lower(failing)
	if !isBroken(err) || !r.src.retries.pause(r.ctx, r.tries, nil) {
		return fmt.Errorf("%s sent %d of %d bytes: %w", by.host, r.n, r.desc.Size, err)
	}
	r.tries++
	return nil
}

// Close implements io.Closer. A Read after it begins another request.
func (r *resumed) Close() error {
	if r.body == nil {
		return nil
	}
	err := r.body.Close()
	r.body = nil
	return err
}
