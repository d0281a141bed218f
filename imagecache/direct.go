package imagecache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
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

// fill reads layer i and hands it over. Its error is never nil.
func (l *layers) fill(ctx context.Context, i int, f *feed) error {
	body := &resumed{ctx: ctx, src: l.src, desc: l.descs[i]}
	defer body.Close()
	r := l.watch(body, PhasePull, i, l.descs[i].Size)
	for {
		chunk := make([]byte, aheadChunk)
		n, err := io.ReadFull(r, chunk)
		if err == io.ErrUnexpectedEOF && body.ended {
			err = io.EOF
		}
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

// openFeed is Open for layers that come straight from a registry.
func (l *layers) openFeed(i int) (io.ReadCloser, error) {
	v, err := verify(l.feeds[i], fmt.Sprintf("layer %d", i+1), l.descs[i].Digest, l.descs[i].Size)
	if err != nil {
		return nil, err
	}
	return l.unpacked(counted{v, &l.compressed}, readCloser{v, l.releaseSlot}, i)
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

// resumable is a source that can send the rest of a blob.
type resumable interface {
	// blobFrom opens a blob at an offset.
	blobFrom(ctx context.Context, desc v1.Descriptor, from int64) (io.ReadCloser, error)
}

// resumed reads a blob, and goes on where it was when the transfer breaks off.
type resumed struct {
	ctx  context.Context //nolint:containedctx // lives as long as the transfer of one layer
	src  source
	desc v1.Descriptor

	body  io.ReadCloser
	n     int64
	tries int   // in vain, in a row
	mark  int64 // n when it broke off last
	ended bool  // by the blob's own end
}

// Read implements io.Reader.
func (r *resumed) Read(p []byte) (int, error) {
	for {
		n, err := r.readOnce(p)
		r.n += int64(n)
		if err == nil || err == io.EOF || r.ctx.Err() != nil {
			r.ended = err == io.EOF
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

func (r *resumed) readOnce(p []byte) (int, error) {
	if r.body == nil {
		body, err := r.open()
		if err != nil {
			return 0, err
		}
		r.body = body
	}
	return r.body.Read(p)
}

func (r *resumed) open() (io.ReadCloser, error) {
	if from, ok := r.src.(resumable); ok && r.n > 0 {
		body, err := from.blobFrom(r.ctx, r.desc, r.n)
		if !isRangeRefused(err) {
			return body, err
		}
	}
	body, err := r.src.blob(r.ctx, r.desc)
	if err == nil {
		err = skip(body, r.n)
	}
	return body, err
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
	_ = r.Close()
	if r.n-r.mark >= resumeProgress {
		r.tries = 0
	}
	r.mark = r.n
	r.tries++
	if !worthRefetch(err) || r.tries >= layerTries {
		return err
	}
	return wait(r.ctx, retryWaits[min(r.tries-1, len(retryWaits)-1)])
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
