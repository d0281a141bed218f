package imagecache

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync/atomic"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/imagecache/store"
)

// Serve converts what the process at the other end of conn hands over
// (delegate.go), into rootfs.sqfs in dir, an empty folder. It returns when the
// other end closes the stream; after an order that succeeded, dir holds that
// file and nothing else, otherwise nothing.
//
// It is for a process that can do nothing else: what it reads was made by
// strangers. The bytes of each layer have been verified by the sender; that
// they hold what the image's config says is verified here.
func Serve(ctx context.Context, conn io.ReadWriter, c Converter, dir string) error {
	d := &delivery{conn: conn, in: bufio.NewReaderSize(conn, 256<<10), limits: limitsOf(c)}
	d.progress.f = func(p Progress) { _ = d.answer(outcome{Progress: &p}) }
	for {
		err := d.next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read an order: %w", err)
		}
		if err := d.fill(ctx, c, dir); err != nil {
			return fmt.Errorf("answer an order: %w", err)
		}
	}
}

// fill carries one order out and answers it.
func (d *delivery) fill(ctx context.Context, c Converter, dir string) error {
	m, err := d.convert(ctx, c, dir)
	if err == nil {
		return d.answer(outcome{Made: &m})
	}
	err = errors.Join(err, removeAll(dir))
	if errors.Is(err, errGivenUp) {
		return d.answer(outcome{Given: true})
	}
	failed := outcome{Failure: fault.NewMessage(converterFault(err))}
	_ = errors.As(err, &failed.Errno)
	if err := d.answer(failed); err != nil {
		return err
	}
	return d.drain()
}

// converterFault gives an error of this machine, as opposed to the image's, a
// remedy: across processes the cause is lost.
func converterFault(err error) error {
	blame, remedy := fault.Bug, ""
	if isLocal(err) {
		blame, remedy = diagnose(Reference{}, err)
	}
	return fault.Wrap("convert", "", blame, remedy, err)
}

func (d *delivery) convert(ctx context.Context, c Converter, dir string) (made, error) {
	work, out := filepath.Join(dir, "work"), filepath.Join(dir, store.RootfsName)
	if err := os.Mkdir(work, 0o700); err != nil {
		return made{}, err
	}
	if err := c.Convert(ctx, d, work, out, d.progress.report); err != nil {
		return made{}, err
	}
	if err := os.RemoveAll(work); err != nil {
		return made{}, err
	}
	size, sum, err := measure(ctx, out)
	return made{Size: size, SHA256: sum, Uncompressed: d.uncompressed.Load()}, err
}

// errGivenUp is the cause when the sender gave the order up.
var errGivenUp = errors.New("the order was given up")

// A delivery is the LayerSource of an order.
type delivery struct {
	conn     io.Writer
	in       *bufio.Reader
	progress reporter
	limits   Limits

	diffIDs      []v1.Hash
	opened       int // layers so far
	uncompressed atomic.Int64

	left  uint32 // of the frame at hand
	ended bool   // the layer at hand has
	given error  // errGivenUp once it was
}

// next reads an order. io.EOF says that no more come.
func (d *delivery) next() error {
	*d = delivery{conn: d.conn, in: d.in, limits: d.limits, progress: reporter{f: d.progress.f}}
	n, err := d.length()
	if err != nil {
		return err
	}
	if n == 0 || n > maxFrame {
		return fmt.Errorf("a frame of %d bytes", n)
	}
	raw := make([]byte, n)
	if _, err := io.ReadFull(d.in, raw); err != nil {
		return err
	}
	var o order
	if err := json.Unmarshal(raw, &o); err != nil {
		return err
	}
	d.diffIDs = o.DiffIDs
	return nil
}

func (d *delivery) length() (uint32, error) {
	var raw [4]byte
	if _, err := io.ReadFull(d.in, raw[:]); err != nil {
		return 0, err
	}
	return binary.BigEndian.Uint32(raw[:]), nil
}

func (d *delivery) answer(a outcome) error {
	line, err := json.Marshal(a)
	if err != nil {
		return err
	}
	_, err = d.conn.Write(append(line, '\n'))
	return err
}

// Len implements LayerSource.
func (d *delivery) Len() int { return len(d.diffIDs) }

// Open implements LayerSource, for a converter that opens one layer after the
// other and reads each to its end.
func (d *delivery) Open(_ context.Context, i int) (io.ReadCloser, error) {
	if i != d.opened {
		return nil, fmt.Errorf("open layer %d out of its order", i+1)
	}
	d.opened++
	d.ended = false
	return openTar(frames{d}, tarStream{
		diffID: d.diffIDs[i], layer: i + 1, layers: len(d.diffIDs), progress: &d.progress, count: &d.uncompressed, limits: d.limits,
	}, func() error { return nil })
}

// frames reads the bytes of the layer at hand.
type frames struct{ *delivery }

// Read implements io.Reader. The end of the stream, as opposed to the layer's,
// is the sender's fault and not the image's.
func (d frames) Read(p []byte) (int, error) {
	if d.given != nil {
		return 0, d.given
	}
	if d.ended {
		return 0, io.EOF
	}
	n, err := d.read(p)
	if err != nil {
		d.given = &transferError{d.opened, len(d.diffIDs), fmt.Errorf("%w: %w", errGivenUp, err)}
		return n, d.given
	}
	if d.ended {
		return 0, io.EOF
	}
	return n, nil
}

func (d *delivery) read(p []byte) (int, error) {
	for d.left == 0 {
		n, err := d.length()
		switch {
		case err != nil:
			return 0, err
		case n == giveUp:
			return 0, errGivenUp
		case n > maxFrame:
			return 0, fmt.Errorf("a frame of %d bytes", n)
		case n == 0:
			d.ended = true
			return 0, nil
		}
		d.left = n
	}
	n, err := d.in.Read(p[:min(len(p), int(d.left))])
	d.left -= uint32(n)
	return n, err
}

// drain reads on until the sender has noticed the failure. Ending at once could
// take the answer away from it.
func (d *delivery) drain() error {
	for d.given == nil && d.opened <= len(d.diffIDs) {
		if _, err := io.Copy(io.Discard, frames{d}); err != nil {
			return nil //nolint:nilerr // that is the end we wait for
		}
		d.opened++
		d.ended = false
	}
	return nil
}
