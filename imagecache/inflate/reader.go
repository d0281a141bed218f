package inflate

import "io"

// buffers is how many chunks may wait for the reader, besides the one that is
// being filled and the one that is being read.
const buffers = 3

// A Reader is the content of a gzip stream. It reads all of its input, to the
// end, and gives an error if anything follows the last member. It is not to be
// used by several goroutines at once.
type Reader struct {
	full chan chunk
	free chan []byte
	stop chan struct{}

	buffer  []byte // that data is of
	data    []byte
	err     error
	stopped bool
}

// A chunk is a part of the content. The last one has an error, io.EOF for the
// good end.
type chunk struct {
	buffer, data []byte
	err          error
}

// NewReader begins to read r, in a goroutine that ends when r does, or at its
// next Read from r after Close. explain, unless it is nil, is told of every
// error but io.EOF and says which one to pass on; it may go on reading r.
func NewReader(r io.Reader, explain func(error) error) *Reader {
	z := &Reader{full: make(chan chunk, buffers), free: make(chan []byte, buffers+2), stop: make(chan struct{})}
	go z.run(newDecoder(r), explain)
	return z
}

func (z *Reader) run(d *decoder, explain func(error) error) {
	for made := 0; ; {
		var c chunk
		if made < buffers+2 && len(z.free) == 0 {
			z.free <- make([]byte, bufferSize)
			made++
		}
		select {
		case c.buffer = <-z.free:
		case <-z.stop:
			return
		}
		c.data, c.err = d.next(c.buffer)
		if c.err != nil && c.err != io.EOF && explain != nil {
			c.err = explain(c.err)
		}
		select {
		case z.full <- c:
		case <-z.stop:
			return
		}
		if c.err != nil {
			return
		}
	}
}

// Read implements io.Reader.
func (z *Reader) Read(p []byte) (int, error) {
	for len(z.data) == 0 {
		if z.err != nil {
			return 0, z.err
		}
		if z.buffer != nil {
			z.free <- z.buffer
		}
		c := <-z.full
		z.buffer, z.data, z.err = c.buffer, c.data, c.err
	}
	n := copy(p, z.data)
	z.data = z.data[n:]
	return n, nil
}

// Close lets the goroutine end. It does not wait for it.
func (z *Reader) Close() error {
	if !z.stopped {
		z.stopped = true
		close(z.stop)
	}
	return nil
}
