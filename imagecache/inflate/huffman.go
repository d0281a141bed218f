package inflate

import (
	"encoding/binary"
	"io"
)

// What the fast loop may do in one round without looking: read so many bytes of
// input, and write so many of output, beyond the last match's length in part
// (copies go by eight bytes).
const (
	inputSlack  = 16
	outputSlack = 3 + 258 + 8
)

var le = binary.LittleEndian

// symbols decodes a block of codes until it ends, or until there is no room in
// the output. d.block tells which.
func (d *decoder) symbols() error {
	for d.w <= d.limit {
		if d.end-d.pos < inputSlack && d.readErr == nil {
			d.fill()
		}
		var err error
		if d.end-d.pos >= inputSlack {
			err = d.fast()
		} else {
			err = d.one()
		}
		if err != nil || d.block != blockCodes {
			return err
		}
	}
	return nil
}

// fast decodes symbols while there is enough of input and room.
func (d *decoder) fast() error {
	in, out, lit, dist := d.in[:d.end], d.out, &d.lit, &d.dist
	pos, w, hold, n := d.pos, d.w, d.bits, d.n
	lastIn, limit, low := len(in)-inputSlack, d.limit, d.low
	var err error
	for pos <= lastIn && w <= limit {
		hold |= le.Uint64(in[pos:]) << (n & 63)
		pos, n = pos+int((63-n)>>3), n|56
		e := lit[hold&(1<<litBits-1)]
		if e&isLiteral != 0 {
			hold, n = hold>>(e&63), n-uint(e&63)
			out[w] = byte(e >> 16)
			w++
			e = lit[hold&(1<<litBits-1)]
			if e&isLiteral != 0 {
				hold, n = hold>>(e&63), n-uint(e&63)
				out[w] = byte(e >> 16)
				w++
				e = lit[hold&(1<<litBits-1)]
				if e&isLiteral != 0 {
					hold, n = hold>>(e&63), n-uint(e&63)
					out[w] = byte(e >> 16)
					w++
					continue
				}
			}
			// A length and a distance take up to 48 bits.
			hold |= le.Uint64(in[pos:]) << (n & 63)
			pos, n = pos+int((63-n)>>3), n|56
		}
		if e&isMore != 0 {
			hold, n = hold>>litBits, n-litBits
			e = lit[uint(e>>16)+uint(hold)&(1<<(e>>8&15)-1)]
			if e&isLiteral != 0 {
				hold, n = hold>>(e&63), n-uint(e&63)
				out[w] = byte(e >> 16)
				w++
				continue
			}
		}
		if e&isMatch == 0 {
			if d.block = blockNone; e == 0 {
				err = errCorrupt
			}
			hold, n = hold>>(e&63), n-uint(e&63)
			break
		}
		length := int(e>>16) + int(hold&(1<<(e&63)-1)>>(e>>8&15))
		hold, n = hold>>(e&63), n-uint(e&63)

		e = dist[hold&(1<<distBits-1)]
		if e&isMore != 0 {
			hold, n = hold>>distBits, n-distBits
			e = dist[uint(e>>16)+uint(hold)&(1<<(e>>8&15)-1)]
		}
		distance := int(e>>16) + int(hold&(1<<(e&63)-1)>>(e>>8&15))
		hold, n = hold>>(e&63), n-uint(e&63)
		if e == 0 || distance > w-low {
			err = errCorrupt
			break
		}
		if distance >= 8 {
			from, to := out[w-distance:w-distance+length+8], out[w:w+length+8]
			for i := 0; i < length; i += 8 {
				le.PutUint64(to[i:], le.Uint64(from[i:]))
			}
		} else {
			near(out[w-distance:w+length], distance)
		}
		w += length
	}
	d.pos, d.w, d.n = pos, w, n
	d.bits = hold & (1<<n - 1)
	return err
}

// near repeats the first distance bytes of p, less than eight, to its end.
func near(p []byte, distance int) {
	for i := distance; i < len(p); i++ {
		p[i] = p[i-distance]
	}
}

// one decodes one symbol near the end of the input, where every bit has to be
// looked at before it is taken.
func (d *decoder) one() error {
	e, err := d.code(d.lit[:], litBits)
	switch {
	case err != nil:
		return err
	case e&isLiteral != 0:
		d.out[d.w] = byte(e >> 16)
		d.w++
		return nil
	case e&isEnd != 0:
		d.block = blockNone
		return nil
	}
	length, err := d.value(e)
	if err != nil {
		return err
	}
	if e, err = d.code(d.dist[:], distBits); err != nil {
		return err
	}
	distance, err := d.value(e)
	if err != nil {
		return err
	}
	if distance > d.w-d.low {
		return errCorrupt
	}
	for i := range length {
		d.out[d.w+i] = d.out[d.w+i-distance]
	}
	d.w += length
	return nil
}

// code takes a code. What follows it is left to value.
func (d *decoder) code(table []entry, width uint) (entry, error) {
	d.refill()
	e := table[d.bits&(1<<width-1)]
	if e&isMore != 0 {
		if d.n < width {
			return 0, d.short()
		}
		d.bits >>= width
		d.n -= width
		e = table[uint(e>>16)+uint(d.bits)&(1<<(e>>8&15)-1)]
	}
	size := uint(e >> 8 & 15)
	switch {
	case e == 0 && d.n < maxCode && d.readErr != nil:
		return 0, d.short()
	case e == 0:
		return 0, errCorrupt
	case d.n < size:
		return 0, d.short()
	}
	d.bits >>= size
	d.n -= size
	return e, nil
}

// value takes the bits that follow the code of a length or a distance.
func (d *decoder) value(e entry) (int, error) {
	more, err := d.take(uint(e&63) - uint(e>>8&15))
	return int(e>>16) + int(more), err
}

// refill takes as many whole bytes of input as there is room for.
func (d *decoder) refill() {
	for d.n <= 56 {
		if d.pos == d.end {
			if d.readErr != nil {
				return
			}
			d.fill()
			continue
		}
		d.bits |= uint64(d.in[d.pos]) << d.n
		d.pos++
		d.n += 8
	}
}

// take takes n bits, 32 at most.
func (d *decoder) take(n uint) (uint32, error) {
	if d.n < n {
		d.refill()
	}
	if d.n < n {
		return 0, d.short()
	}
	v := uint32(d.bits & (1<<n - 1))
	d.bits >>= n
	d.n -= n
	return v, nil
}

// short is the error when the input has ended too early.
func (d *decoder) short() error {
	if d.readErr == nil || d.readErr == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return d.readErr
}

// fill reads more of the input. It first gives back the bytes among the bits,
// so that those are less than a byte.
func (d *decoder) fill() {
	d.unread()
	d.end = copy(d.in, d.in[d.pos:d.end])
	d.pos = 0
	for range 100 {
		n, err := d.r.Read(d.in[d.end:])
		d.end += n
		if d.readErr = err; n > 0 || err != nil {
			return
		}
	}
	d.readErr = io.ErrNoProgress
}

// unread gives whole bytes back to the input.
func (d *decoder) unread() {
	d.pos -= int(d.n >> 3)
	d.n &= 7
	d.bits &= 1<<d.n - 1
}
