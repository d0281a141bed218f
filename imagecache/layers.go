package imagecache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

const defaultParallel = 3

// layers are the layers of one image. Those of a registry go straight to a
// converter that streams (direct.go); for others they are transferred to files,
// some at a time, lowest first, and a layer can be opened as soon as it has
// arrived. Those on disk already are read in place.
type layers struct {
	src      source
	registry *registrySource // src, if it is one
	descs    []v1.Descriptor
	diffIDs  []v1.Hash
	dir      string
	progress *reporter
	limits   Limits
	throttle *throttle

	arrived []chan struct{} // closed when the layer has arrived or never will
	errs    []error         // why it never will; read after arrived
	wg      sync.WaitGroup
	cancel  context.CancelCauseFunc
	feeds   []*feed       // of layers that do not go to files
	slots   chan struct{} // taken by layers on their way to memory
	done    atomic.Int64  // when the last layer arrived so far, Unix nanoseconds

	compressed   atomic.Int64 // bytes read so far
	uncompressed atomic.Int64
}

// startLayers begins the transfer of im's layers, into dir unless direct. The
// caller must call stop.
func startLayers(ctx context.Context, src source, im *image, dir string, direct bool, opts FetchOptions, progress *reporter) (*layers, error) {
	parallel := opts.Parallel
	l := &layers{
		src: src, descs: im.layers, diffIDs: im.config.RootFS.DiffIDs, dir: dir, progress: progress, limits: limitsOf(opts.Converter), throttle: newThrottle(opts.Rate),
		arrived: make([]chan struct{}, len(im.layers)), errs: make([]error, len(im.layers)),
	}
	for i := range l.arrived {
		l.arrived[i] = make(chan struct{})
	}
	ctx, l.cancel = context.WithCancelCause(ctx)
	if src.local() {
		for i := range l.arrived {
			close(l.arrived[i])
		}
		return l, nil
	}
	l.registry = src.(*registrySource) // all others are local
	if parallel <= 0 {
		parallel = defaultParallel
	}
	for i, d := range l.descs { // so that what is left can be told from the start
		progress.report(Progress{Phase: PhasePull, Layer: i + 1, Layers: len(l.descs), Total: max(d.Size, 0)})
	}
	if direct {
		l.feedLayers(ctx, parallel)
		return l, nil
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	l.transfer(ctx, parallel)
	return l, nil
}

// transfer starts the workers. The first failure ends all of them.
func (l *layers) transfer(ctx context.Context, parallel int) {
	var next atomic.Int64
	for range min(parallel, len(l.descs)) {
		l.wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= len(l.descs) {
					return
				}
				if l.errs[i] = l.fetch(ctx, i); l.errs[i] != nil {
					l.cancel(l.errs[i])
				}
				l.done.Store(time.Now().UnixNano())
				close(l.arrived[i])
			}
		})
	}
}

// stop ends the transfer and waits until nothing writes to dir any more.
func (l *layers) stop() {
	l.cancel(context.Canceled)
	l.wg.Wait()
}

func (l *layers) path(i int) string { return filepath.Join(l.dir, fmt.Sprintf("%03d", i)) }

// fetch brings layer i to disk, verified.
func (l *layers) fetch(ctx context.Context, i int) error {
	err := l.fetchOnce(ctx, i)
	for isElsewhere(err) && ctx.Err() == nil {
		err = l.fetchOnce(ctx, i)
	}
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		return &transferError{i + 1, len(l.descs), err}
	}
	return nil
}

// arriving opens layer i of a registry. The stream ends well only if it is
// what was named.
func (l *layers) arriving(ctx context.Context, i int) (io.Reader, func(), error) {
	body := &resumed{ctx: ctx, src: l.registry, desc: l.descs[i]}
	v, err := verify(body, fmt.Sprintf("layer %d", i+1), l.descs[i].Digest, l.descs[i].Size)
	if err != nil {
		return nil, nil, err
	}
	v.bad = body.blame
	return l.watch(l.throttle.reader(ctx, v), PhasePull, i, l.descs[i].Size), func() { _ = body.Close() }, nil
}

func (l *layers) fetchOnce(ctx context.Context, i int) error {
	r, end, err := l.arriving(ctx, i)
	if err != nil {
		return err
	}
	defer end()
	f, err := os.OpenFile(l.path(i), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	n, err := io.Copy(f, r)
	l.compressed.Add(n)
	return errors.Join(err, f.Close())
}

// Len implements LayerSource.
func (l *layers) Len() int { return len(l.descs) }

// Open implements LayerSource. Closing the stream removes the layer's file:
// layers are read once.
func (l *layers) Open(ctx context.Context, i int) (io.ReadCloser, error) {
	if l.feeds != nil {
		return l.openFeed(i)
	}
	select {
	case <-l.arrived[i]:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if l.errs[i] != nil {
		return nil, l.errs[i]
	}
	if l.src.local() {
		return l.openLocal(ctx, i)
	}
	f, err := os.Open(l.path(i))
	if err != nil {
		return nil, err
	}
	return l.unpacked(f, f, i)
}

// openLocal reads a layer where it lies. Its bytes are verified on the way.
func (l *layers) openLocal(ctx context.Context, i int) (io.ReadCloser, error) {
	body, err := l.src.blob(ctx, l.descs[i])
	if err != nil {
		return nil, err
	}
	v, err := verify(body, fmt.Sprintf("layer %d", i+1), l.descs[i].Digest, l.descs[i].Size)
	if err != nil {
		body.Close()
		return nil, err
	}
	return l.unpacked(counted{v, &l.compressed}, body, i)
}

// unpacked returns the tar stream inside r, layer i as it was transferred.
func (l *layers) unpacked(r io.Reader, closer io.Closer, i int) (io.ReadCloser, error) {
	t := tarStream{diffID: l.diffIDs[i], layer: i + 1, layers: len(l.descs), progress: l.progress, count: &l.uncompressed, limits: l.limits}
	return openTar(r, t, func() error {
		if !l.src.local() && l.feeds == nil {
			defer os.Remove(l.path(i))
		}
		return closer.Close()
	})
}

// A tarStream says which layer a stream is, and who is told of its bytes.
type tarStream struct {
	diffID        v1.Hash
	layer, layers int // as in Progress
	progress      *reporter
	count         *atomic.Int64
	limits        Limits
}

// openTar returns the tar stream inside r. It ends well only if r does, too
// (all decompressors read on until it ends), and has the layer's diffID. Closing
// it calls end, which is also called on errors.
func openTar(r io.Reader, t tarStream, end func() error) (io.ReadCloser, error) {
	packed := &countedBytes{Reader: r}
	plain, err := decompress(packed)
	if err != nil {
		return nil, errors.Join(err, end())
	}
	bounded := &inflating{plain: plain, packed: packed, limits: t.limits, before: t.count.Load()}
	v, err := verify(bounded, fmt.Sprintf("content of layer %d", t.layer), t.diffID, -1)
	if err != nil {
		return nil, errors.Join(err, plain.Close(), end())
	}
	v.bad = contradiction
	watched := t.progress.reader(v, Progress{Phase: PhaseUnpack, Layer: t.layer, Layers: t.layers})
	return readCloser{counted{watched, t.count}, func() error { return errors.Join(plain.Close(), end()) }}, nil
}

// counted adds what is read through it to n.
type counted struct {
	io.Reader
	n *atomic.Int64
}

// Read implements io.Reader.
func (c counted) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.n.Add(int64(n))
	return n, err
}

// watch reports the bytes read of layer i.
func (l *layers) watch(r io.Reader, phase Phase, i int, total int64) io.Reader {
	return l.progress.reader(r, Progress{Phase: phase, Layer: i + 1, Layers: len(l.descs), Total: max(total, 0)})
}
