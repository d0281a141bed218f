package imagecache

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"

	"github.com/berth-hpc/berth/fault"
)

// On a node two processes share a fetch: one speaks to registries and verifies
// what arrives, the other (Serve, in serve.go) unpacks and converts it, shut
// in. A stream connects them. The first sends frames: a length of 4 bytes, the
// highest first, and as many bytes.
//
//	an order, as JSON
//	for each layer, from the lowest:
//	    its bytes as they are in the registry, in any number of frames
//	    a frame of length 0: they are the ones that were named
//
// and at any place instead of all that the length giveUp: what came so far is
// to be thrown away. The second answers each order by lines of JSON, of which
// the last says what became of it. Then another order may come.

// giveUp ends an order before its time.
const giveUp = 1<<32 - 1

// Bounds on what one side makes the other hold, in bytes.
const (
	maxFrame  = 1 << 20
	maxAnswer = 64 << 10
)

// An order asks for one image.
type order struct {
	DiffIDs []v1.Hash `json:"diff_ids"`
}

// An outcome is one line of the converting process, with one field set.
type outcome struct {
	Progress *Progress      `json:"progress,omitempty"`
	Failure  *fault.Message `json:"failure,omitempty"`
	Errno    unix.Errno     `json:"errno,omitempty"` // beside Failure: what the kernel said
	Given    bool           `json:"given,omitempty"` // up, as it was told
	Made     *made          `json:"made,omitempty"`
}

// made says what came of the layers: the squashfs file's size in bytes and its
// SHA-256 in hex, and the layers' size as tar streams.
type made struct {
	Size         int64  `json:"size"`
	SHA256       string `json:"sha256"`
	Uncompressed int64  `json:"uncompressed"`
}

// errConverter is the cause when the converting process broke the protocol or
// ended.
var errConverter = errors.New("the converter ended without an answer")

// A delegate is the converting process, as the fetching one sees it.
type delegate struct {
	conn    io.Writer
	answers *bufio.Reader
}

func newDelegate(conn io.ReadWriter) *delegate {
	return &delegate{conn: conn, answers: bufio.NewReaderSize(conn, maxAnswer)}
}

// convert has the layers converted, which go past this machine's disk.
func (d *delegate) convert(ctx context.Context, l *layers, progress ProgressFunc) (made, error) {
	last := make(chan outcome, 1)
	go func() {
		a := d.listen(progress)
		if a.Made == nil {
			l.cancel(errConverter) // no use in more bytes
		}
		last <- a
	}()
	err := d.hand(ctx, l)
	if err != nil {
		// Broken or not, it answers or is gone then.
		_ = d.writeLength(giveUp)
	}
	a := <-last
	switch {
	case a.Failure != nil && a.Errno != 0:
		return made{}, &remoteError{a.Failure.Err(), a.Errno}
	case a.Failure != nil:
		return made{}, a.Failure.Err()
	case err != nil:
		return made{}, err
	case a.Made == nil:
		return made{}, errConverter
	}
	return *a.Made, nil
}

// A remoteError is a failure of another process with what the kernel told that
// one, for IsDisk and its like. The text has it already.
type remoteError struct {
	error
	errno unix.Errno
}

// Unwrap returns the failure and its cause.
func (e *remoteError) Unwrap() []error { return []error{e.error, e.errno} }

// hand sends the order and the layers.
func (d *delegate) hand(ctx context.Context, l *layers) error {
	text, err := json.Marshal(order{DiffIDs: l.diffIDs})
	if err != nil {
		return err
	}
	if len(text) > maxFrame {
		return damaged("it has %d layers", l.Len())
	}
	if err := d.writeFrame(text); err != nil {
		return err
	}
	for i := range l.Len() {
		if err := d.handLayer(ctx, l, i); err != nil {
			return err
		}
	}
	return nil
}

func (d *delegate) handLayer(ctx context.Context, l *layers, i int) error {
	defer func() { _ = l.releaseSlot() }()
	for {
		chunk, err := l.feeds[i].next(ctx)
		if err == io.EOF {
			return d.writeLength(0)
		}
		if err != nil {
			return err
		}
		l.compressed.Add(int64(len(chunk)))
		if err := d.writeFrame(chunk); err != nil {
			return err
		}
	}
}

func (d *delegate) writeFrame(data []byte) error {
	if len(data) == 0 {
		return nil // it would end the layer
	}
	if err := d.writeLength(uint32(len(data))); err != nil {
		return err
	}
	if _, err := d.conn.Write(data); err != nil {
		return fmt.Errorf("%w: %w", errConverter, err)
	}
	return nil
}

func (d *delegate) writeLength(n uint32) error {
	if _, err := d.conn.Write(binary.BigEndian.AppendUint32(nil, n)); err != nil {
		return fmt.Errorf("%w: %w", errConverter, err)
	}
	return nil
}

// listen passes progress on and returns the last answer to an order; one
// without anything in it if none came. The other side is not believed: its
// lines are bounded, its texts cleaned.
func (d *delegate) listen(progress ProgressFunc) outcome {
	for {
		line, err := d.answers.ReadSlice('\n')
		var a outcome
		if err != nil || json.Unmarshal(line, &a) != nil {
			return outcome{}
		}
		if a.Progress == nil {
			return a
		}
		if progress != nil {
			progress(*a.Progress)
		}
	}
}
