package squashfs

import "errors"

var errLZO = errors.New("lzo: damaged")

// unpackLZO undoes LZO1X, which enroot uses by default. The format is
// described by Linux, Documentation/staging/lzo.rst; squashfs does not use its
// run-length extension.
func unpackLZO(packed []byte, limit int) ([]byte, error) {
	z := &lzo{in: packed, out: make([]byte, 0, limit), limit: limit}
	for !z.ended && z.err == nil {
		z.step()
	}
	return z.out, z.err
}

// lzo is the state between two instructions.
type lzo struct {
	in    []byte
	out   []byte
	limit int
	begun bool
	state int // literals that the last instruction copied: 0 to 3, or 4 and more
	ended bool
	err   error
}

// next returns a byte of the input.
func (z *lzo) next() int {
	if len(z.in) == 0 {
		z.err = errLZO
		return 0
	}
	b := z.in[0]
	z.in = z.in[1:]
	return int(b)
}

// length reads a length that did not fit into the instruction: zero bytes for
// 255 each, and a last one.
func (z *lzo) length(base int) int {
	for z.err == nil && base <= z.limit {
		b := z.next()
		if b != 0 {
			return base + b
		}
		base += 255
	}
	z.err = errLZO
	return 0
}

// literals copies n bytes of the input.
func (z *lzo) literals(n int) {
	if n > len(z.in) || len(z.out)+n > z.limit {
		z.err = errLZO
		return
	}
	z.out = append(z.out, z.in[:n]...)
	z.in = z.in[n:]
	z.state = min(n, 4)
}

// match copies n bytes that are distance back in the output, which may overlap,
// and then the literals that the instruction names.
func (z *lzo) match(distance, n, literals int) {
	if z.err != nil || distance > len(z.out) || len(z.out)+n > z.limit {
		z.err = errLZO
		return
	}
	from := len(z.out) - distance
	for i := range n {
		z.out = append(z.out, z.out[from+i])
	}
	z.literals(literals)
}

// step does one instruction.
func (z *lzo) step() {
	op := z.next()
	if !z.begun {
		z.begun = true
		if op > 17 {
			z.literals(op - 17)
			return
		}
	}
	switch {
	case z.err != nil:
	case op >= 64: // 3 to 8 bytes, up to 2 KiB back
		n := op>>5 + 1
		z.match(z.next()<<3+(op>>2)&7+1, n, op&3)
	case op >= 32:
		z.far(op&31, 31, 1)
	case op >= 16:
		z.far(op&7, 7, 16384+(op&8)<<11)
	case z.state == 0:
		z.run(op)
	case z.state < 4: // 2 bytes, up to 1 KiB back
		z.match(z.next()<<2+op>>2+1, 2, op&3)
	default: // 3 bytes, 2 KiB to 3 KiB back
		z.match(z.next()<<2+op>>2+2049, 3, op&3)
	}
}

// run copies a long run of literals.
func (z *lzo) run(op int) {
	n := op + 3
	if op == 0 {
		n = z.length(15 + 3)
	}
	if z.err == nil {
		z.literals(n)
	}
}

// far is a match whose length has mask as its greatest value in the
// instruction, and whose distance follows it. The one at 16 KiB sharp is the
// end.
func (z *lzo) far(n, mask, base int) {
	if n == 0 {
		n = z.length(mask)
	}
	d := z.next()
	d |= z.next() << 8
	distance := base + d>>2
	if base >= 16384 && distance == 16384 {
		z.ended = true
		if len(z.in) != 0 || n != 1 {
			z.err = errLZO
		}
		return
	}
	z.match(distance, n+2, d&3)
}
