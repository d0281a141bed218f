package squashfs

import (
	"bytes"
	"io"
	"sync"
	"sync/atomic"

	"github.com/klauspost/compress/zstd"
)

// zeros is what a block is compared with that may be a hole.
var zeros [BlockSize]byte

// A block is on its way from a reader through a compressor to the file.
type block struct {
	raw  []byte // what was read; capacity BlockSize
	out  []byte // room for what is written
	size uint32 // what out holds or raw, with storedBlock; 0 for zeros
	file *File  // nil: a fragment
	done chan struct{}
}

// pipeline compresses blocks in several goroutines and writes them in the
// order of submit, from another one. Blocks are taken from get, so their
// number bounds the memory.
type pipeline struct {
	free, work, order chan *block
	workers, writer   sync.WaitGroup

	out       io.Writer
	offset    uint64
	fragments []fragment
	failed    atomic.Pointer[error]
	once      sync.Once
}

type fragment struct {
	start uint64
	size  uint32
}

// newEncoder returns an encoder whose frames the kernel reads: no window above
// a block, no checksum that only costs time.
func newEncoder() (*zstd.Encoder, error) {
	return zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.EncoderLevelFromZstd(3)), zstd.WithEncoderConcurrency(1),
		zstd.WithEncoderCRC(false), zstd.WithWindowSize(BlockSize), zstd.WithZeroFrames(true))
}

func newPipeline(out io.Writer, offset uint64, workers int) (*pipeline, error) {
	// So many that workers have something to do while the reader waits for the
	// network or for a processor.
	n := 4*workers + 8
	p := &pipeline{
		free: make(chan *block, n), work: make(chan *block, n), order: make(chan *block, n),
		out: out, offset: offset,
	}
	for range n {
		p.free <- &block{raw: make([]byte, 0, BlockSize), out: make([]byte, 0, BlockSize+BlockSize/8), done: make(chan struct{}, 1)}
	}
	encoders := make([]*zstd.Encoder, workers)
	for i := range encoders {
		var err error
		if encoders[i], err = newEncoder(); err != nil {
			return nil, err
		}
	}
	for _, e := range encoders {
		p.workers.Go(func() { p.compress(e) })
	}
	p.writer.Go(p.write)
	return p, nil
}

// get returns an empty block, waiting for one to be written.
func (p *pipeline) get() *block {
	b := <-p.free
	b.raw, b.file = b.raw[:0], nil
	return b
}

// submit hands over a block. It returns the first error of writing so far.
func (p *pipeline) submit(b *block) error {
	p.order <- b
	p.work <- b
	return p.err()
}

func (p *pipeline) err() error {
	if err := p.failed.Load(); err != nil {
		return *err
	}
	return nil
}

func (p *pipeline) compress(e *zstd.Encoder) {
	for b := range p.work {
		b.out = b.out[:0]
		switch {
		case b.file != nil && bytes.Equal(b.raw, zeros[:len(b.raw)]):
			b.size = 0
		default:
			b.out = e.EncodeAll(b.raw, b.out)
			b.size = uint32(len(b.out))
			if len(b.out) >= len(b.raw) {
				b.size = uint32(len(b.raw)) | storedBlock
			}
		}
		b.done <- struct{}{}
	}
}

// write puts blocks into the file. After an error it only passes them on.
func (p *pipeline) write() {
	for b := range p.order {
		<-b.done
		if p.err() == nil {
			p.place(b)
		}
		p.free <- b
	}
}

func (p *pipeline) place(b *block) {
	start, data := p.offset, b.out
	if b.size&storedBlock != 0 {
		data = b.raw
	}
	if b.size != 0 {
		if _, err := p.out.Write(data); err != nil {
			p.failed.Store(&err)
			return
		}
		p.offset += uint64(len(data))
	}
	if b.file == nil {
		p.fragments = append(p.fragments, fragment{start, b.size})
		return
	}
	b.file.add(start, b.size, len(b.raw))
}

// add notes the next block of a file. The format has one start for a file and
// no gaps, so a leading hole shares its start with the block that follows.
func (f *File) add(start uint64, size uint32, length int) {
	if len(f.blocks) == 0 {
		f.start = start
	}
	if size == 0 {
		f.sparse += uint64(length)
	}
	f.blocks = append(f.blocks, size)
}

// stop waits for all blocks that were submitted. The pipeline is not to be
// used afterwards; a second call does nothing.
func (p *pipeline) stop() error {
	p.once.Do(func() {
		close(p.work)
		p.workers.Wait()
		close(p.order)
		p.writer.Wait()
	})
	return p.err()
}
