package squashfs

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"runtime"
)

// maxWorkers bounds the goroutines that compress: one stream of layers does not
// arrive faster than that many can work, and each costs some 4 MiB.
const maxWorkers = 8

// Options say how a Writer works. No option changes the bytes it writes.
type Options struct {
	// Workers is how many goroutines compress; 0 means one for each processor
	// that this process may use, and 8 at most.
	Workers int
}

// Output is where a Writer puts the file: an empty *os.File, usually.
type Output interface {
	io.Writer
	io.WriterAt
}

// Stats say what a Writer has written, in bytes.
type Stats struct {
	Inodes int
	Data   int64 // content of files, compressed
	Total  int64 // the file
}

// A Writer writes one squashfs file. Its methods are called from one goroutine
// at a time. Close has to be called in the end, also after an error.
type Writer struct {
	out  Output
	data *pipeline
	tail *block // collects small files, or nil
	// fragments counts those begun, tail among them.
	fragments uint32
}

// NewWriter begins a file at the start of out.
func NewWriter(out Output, opts Options) (*Writer, error) {
	if _, err := out.Write(make([]byte, superblockSize)); err != nil {
		return nil, err
	}
	workers := opts.Workers
	if workers <= 0 {
		workers = min(runtime.GOMAXPROCS(0), maxWorkers)
	}
	data, err := newPipeline(out, superblockSize, workers)
	if err != nil {
		return nil, err
	}
	return &Writer{out: out, data: data}, nil
}

// AddFile reads size bytes from r and stores them. Contents lie in the order of
// the calls. Errors of r come back wrapped, an early end as
// io.ErrUnexpectedEOF; the Writer is of no use after one.
func (w *Writer) AddFile(r io.Reader, size int64) (*File, error) {
	f := &File{size: uint64(size), fragment: noFragment}
	if size < BlockSize {
		return f, w.addSmall(f, r)
	}
	for left := size; left > 0; {
		b := w.data.get()
		b.file, b.raw = f, b.raw[:min(left, BlockSize)]
		if err := readFull(r, b.raw); err != nil {
			return nil, err
		}
		left -= int64(len(b.raw))
		if err := w.data.submit(b); err != nil {
			return nil, fmt.Errorf("write data: %w", err)
		}
	}
	return f, nil
}

// addSmall puts a file that does not fill a block into a fragment. The ends of
// larger files get blocks of their own: reading one then costs no second
// block, and as blocks are not padded, nothing is lost but some compression.
func (w *Writer) addSmall(f *File, r io.Reader) error {
	size := int(f.size)
	if size == 0 {
		return nil
	}
	if w.tail != nil && len(w.tail.raw)+size > BlockSize {
		if err := w.flushTail(); err != nil {
			return err
		}
	}
	if w.tail == nil {
		w.tail = w.data.get()
		w.fragments++
	}
	at := len(w.tail.raw)
	w.tail.raw = w.tail.raw[:at+size]
	f.fragment, f.offset = w.fragments-1, uint32(at)
	return readFull(r, w.tail.raw[at:])
}

func readFull(r io.Reader, into []byte) error {
	_, err := io.ReadFull(r, into)
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return fmt.Errorf("read content: %w", err)
	}
	return nil
}

func (w *Writer) flushTail() error {
	if w.tail == nil {
		return nil
	}
	b := w.tail
	w.tail = nil
	if err := w.data.submit(b); err != nil {
		return fmt.Errorf("write data: %w", err)
	}
	return nil
}

// Close ends the Writer's goroutines. After Finish it does nothing.
func (w *Writer) Close() { _ = w.data.stop() }

// Finish writes the tree below root, a Dir, and completes the file. The tree
// must have no loops. It changes nothing in it that callers can see.
func (w *Writer) Finish(root *Inode) (Stats, error) {
	if err := w.flushTail(); err != nil {
		return Stats{}, err
	}
	if err := w.data.stop(); err != nil {
		return Stats{}, fmt.Errorf("write data: %w", err)
	}
	t, err := newTables()
	if err != nil {
		return Stats{}, err
	}
	if err := t.tree(root); err != nil {
		return Stats{}, err
	}
	sb, err := w.writeTables(t, root)
	if err != nil {
		return Stats{}, fmt.Errorf("write tables: %w", err)
	}
	return Stats{Inodes: int(sb.Inodes), Data: int64(sb.InodeTable) - superblockSize, Total: int64(sb.BytesUsed)}, w.seal(sb)
}

// writeTables writes all that follows the data. Linux wants the tables in this
// order, without gaps.
func (w *Writer) writeTables(t *tables, root *Inode) (superblock, error) {
	out := &counter{w: bufio.NewWriter(w.out), n: w.data.offset}
	sb := superblock{
		Magic: magic, Inodes: t.count, BlockSize: BlockSize, Fragments: uint32(len(w.data.fragments)),
		Compression: compressionZstd, BlockLog: blockLog, Flags: flagStoredInodes | flagExportable | flagNoXattrs, IDs: 1, Major: 4,
		Root: root.ref, XattrTable: noTable,
	}
	sb.InodeTable = out.n
	out.write(t.inodes.finish())
	sb.DirTable = out.n
	out.write(t.dirs.finish())
	fragments := t.newTable()
	for _, f := range w.data.fragments {
		fragments.put(le.AppendUint32(le.AppendUint32(le.AppendUint64(nil, f.start), f.size), 0))
	}
	sb.FragTable = out.table(fragments)
	sb.ExportTable = out.table(t.export())
	ids := t.newTable()
	ids.put(make([]byte, 4))
	sb.IDTable = out.table(ids)
	sb.BytesUsed = out.n
	out.write(make([]byte, (padding-out.n%padding)%padding))
	return sb, errors.Join(out.err, out.w.Flush())
}

// seal writes the superblock, without which the file is none.
func (w *Writer) seal(sb superblock) error {
	var b bytes.Buffer
	_ = binary.Write(&b, le, sb) // a buffer takes everything
	_, err := w.out.WriteAt(b.Bytes(), 0)
	return err
}

// counter writes, counts, and keeps the first error.
type counter struct {
	w   *bufio.Writer
	n   uint64
	err error
}

func (c *counter) write(p []byte) {
	if c.err == nil {
		_, c.err = c.w.Write(p)
	}
	c.n += uint64(len(p))
}

// table writes metadata blocks and behind them where each begins; it returns
// where that index is.
func (c *counter) table(m *metadata) uint64 {
	start := c.n
	c.write(m.finish())
	index := c.n
	for _, at := range m.starts {
		c.write(le.AppendUint64(nil, start+uint64(at)))
	}
	return index
}
