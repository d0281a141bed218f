package inflate

import (
	"errors"
	"io"
)

var errCorrupt = errors.New("the deflate stream is damaged")

// Sizes in bytes.
const (
	window     = 32 << 10            // how far back a match may be
	inputSize  = 64<<10 + inputSlack // a whole read fits behind what is left
	chunkSize  = 256 << 10
	bufferSize = window + chunkSize + outputSlack
)

// A blockKind is what the decoder is in.
type blockKind uint8

const (
	blockNone   blockKind = iota // between two blocks
	blockStored                  // copied
	blockCodes                   // decoded
)

// A decoder decodes members into buffers that its caller brings.
type decoder struct {
	r        io.Reader
	in       []byte // in[pos:end] is unread
	pos, end int
	readErr  error  // of r, to be told when what is unread is used up
	bits     uint64 // the next n, from the lowest
	n        uint

	out           []byte
	low, w, limit int // out[low:w] is there; beyond limit there is no room

	block  blockKind
	last   bool // it is the member's last
	stored int  // bytes that are left of a stored block

	lit           [litTable]entry
	dist          [distTable]entry
	alphabets     [3]symbols
	member        member
	lengthScratch [maxLit + maxDist]uint8
}

func newDecoder(r io.Reader) *decoder {
	return &decoder{
		r: r, in: make([]byte, inputSize),
		alphabets: [3]symbols{literalSymbols(), distanceSymbols(), lengthSymbols()},
	}
}

// begin makes out, of bufferSize, the buffer to fill; what was decoded last
// stays before its content, because matches reach back to it.
func (d *decoder) begin(out []byte) {
	keep := min(d.w-d.low, window)
	copy(out[window-keep:window], d.out[d.w-keep:d.w])
	d.out, d.low, d.w, d.limit = out, window-keep, window, len(out)-outputSlack
}

// blocks decodes until the member or the room ends. ended says that the member
// did.
func (d *decoder) blocks() (ended bool, err error) {
	for d.w <= d.limit {
		switch d.block {
		case blockCodes:
			err = d.symbols()
		case blockStored:
			err = d.copyStored()
		case blockNone:
			if d.last {
				return true, nil
			}
			err = d.header()
		}
		if err != nil {
			return false, err
		}
	}
	return false, nil
}

func (d *decoder) header() error {
	head, err := d.take(3)
	if err != nil {
		return err
	}
	d.last = head&1 != 0
	switch head >> 1 {
	case 0:
		return d.storedHeader()
	case 1:
		d.block = blockCodes
		d.fixedCodes()
		return nil
	case 2:
		d.block = blockCodes
		return d.dynamicCodes()
	}
	return errCorrupt
}

func (d *decoder) storedHeader() error {
	if _, err := d.take(d.n & 7); err != nil {
		return err
	}
	sizes, err := d.take(32)
	if err != nil {
		return err
	}
	if sizes>>16 != ^sizes&0xffff {
		return errCorrupt
	}
	d.block, d.stored = blockStored, int(sizes&0xffff)
	return nil
}

func (d *decoder) copyStored() error {
	d.unread()
	for d.stored > 0 && d.w <= d.limit {
		if d.pos == d.end {
			if d.readErr != nil {
				return d.short()
			}
			d.fill()
			continue
		}
		n := copy(d.out[d.w:min(d.w+d.stored, len(d.out))], d.in[d.pos:d.end])
		d.w, d.pos, d.stored = d.w+n, d.pos+n, d.stored-n
	}
	if d.stored == 0 {
		d.block = blockNone
	}
	return nil
}

func (d *decoder) fixedCodes() {
	lengths := d.lengthScratch[:maxLit]
	for i := range lengths {
		switch {
		case i < 144 || i >= 280:
			lengths[i] = 8
		case i < 256:
			lengths[i] = 9
		default:
			lengths[i] = 7
		}
	}
	build(d.lit[:], litBits, d.alphabets[0], lengths) // both are codes
	lengths = lengths[:maxDist]
	for i := range lengths {
		lengths[i] = 5
	}
	build(d.dist[:], distBits, d.alphabets[1], lengths)
}

// lengthOrder is the order in which the lengths of the third code come.
const lengthOrder = "\x10\x11\x12\x00\x08\x07\x09\x06\x0a\x05\x0b\x04\x0c\x03\x0d\x02\x0e\x01\x0f"

func (d *decoder) dynamicCodes() error {
	head, err := d.take(14)
	if err != nil {
		return err
	}
	lits, dists, codes := int(head&31)+257, int(head>>5&31)+1, int(head>>10)+4
	if lits > 286 || dists > 30 {
		return errCorrupt
	}
	var lengths [19]uint8
	for i := range codes {
		n, err := d.take(3)
		if err != nil {
			return err
		}
		lengths[lengthOrder[i]] = uint8(n)
	}
	// Its table goes where that of the distances will be.
	if !build(d.dist[:], distBits, d.alphabets[2], lengths[:]) {
		return errCorrupt
	}
	all := d.lengthScratch[:lits+dists]
	if err := d.codeLengths(all); err != nil {
		return err
	}
	// Without a code for its end a block could not end.
	if all[256] == 0 || !build(d.lit[:], litBits, d.alphabets[0], all[:lits]) ||
		!build(d.dist[:], distBits, d.alphabets[1], all[lits:]) {
		return errCorrupt
	}
	return nil
}

// codeLengths reads lengths that are themselves coded.
func (d *decoder) codeLengths(all []uint8) error {
	for i := 0; i < len(all); {
		e, err := d.code(d.dist[:], distBits)
		if err != nil {
			return err
		}
		value, least, more := uint8(e>>16), 1, uint(0)
		switch value {
		case 16:
			if i == 0 {
				return errCorrupt
			}
			value, least, more = all[i-1], 3, 2
		case 17:
			value, least, more = 0, 3, 3
		case 18:
			value, least, more = 0, 11, 7
		}
		extra, err := d.take(more)
		if err != nil {
			return err
		}
		count := least + int(extra)
		if count > len(all)-i {
			return errCorrupt
		}
		for range count {
			all[i] = value
			i++
		}
	}
	return nil
}
