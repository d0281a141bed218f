package inflate

import (
	"math/bits"
)

// Sizes of codes, in bits.
const (
	maxCode  = 15
	litBits  = 11 // that one look-up takes
	distBits = 8
)

// Sizes of tables: the first look-up, and behind it one part for each
// beginning of codes that are longer. There are at most as many as symbols.
const (
	maxLit    = 288
	maxDist   = 32
	litTable  = 1<<litBits + maxLit<<(maxCode-litBits)
	distTable = 1<<distBits + maxDist<<(maxCode-distBits)
)

// An entry of a table says what a code means:
//
//	bits 0–7    how many bits to take, those after the code included
//	bits 8–11   how many of them are the code
//	bits 12–15  what it is
//	bits 16–31  the literal; the least length or distance; or where the table
//	            goes on, bits 8–11 being how many bits tell then
//
// Zero is the entry of what is no code.
type entry = uint32

const (
	isLiteral = 1 << 12
	isEnd     = 1 << 13 // of the block
	isMore    = 1 << 14 // the code is longer
	isMatch   = 1 << 15 // a length or a distance
)

// symbols are the entries that the symbols of an alphabet have, without the
// length of their codes.
type symbols struct {
	what  []entry
	extra []uint8 // bits that follow the code
}

func literalSymbols() symbols {
	s := symbols{make([]entry, maxLit), make([]uint8, maxLit)}
	for i := range 256 {
		s.what[i] = isLiteral | entry(i)<<16
	}
	s.what[256] = isEnd
	length := 3
	for i := range 28 {
		s.extra[257+i] = uint8(max(i/4-1, 0))
		s.what[257+i] = isMatch | entry(length)<<16
		length += 1 << s.extra[257+i]
	}
	s.what[285] = isMatch | 258<<16
	return s
}

func distanceSymbols() symbols {
	s := symbols{make([]entry, maxDist), make([]uint8, maxDist)}
	distance := 1
	for i := range 30 {
		s.extra[i] = uint8(max(i/2-1, 0))
		s.what[i] = isMatch | entry(distance)<<16
		distance += 1 << s.extra[i]
	}
	return s
}

// lengthSymbols are those of the code that describes the other two.
func lengthSymbols() symbols {
	s := symbols{make([]entry, 19), make([]uint8, 19)}
	for i := range s.what {
		s.what[i] = isLiteral | entry(i)<<16
	}
	return s
}

// build fills table, whose first look-up takes width bits, for codes of the
// given lengths; 0 means that a symbol has none. It reports whether they make a
// code: complete, or one code of one bit, or none at all.
func build(table []entry, width int, s symbols, lengths []uint8) bool {
	var count [maxCode + 1]int
	longest := 0
	for _, n := range lengths {
		count[n]++
		longest = max(longest, int(n))
	}
	count[0] = 0
	if !isCode(count, longest) {
		return false
	}
	clear(table[:1<<width])
	var next [maxCode + 2]int
	for n := 1; n <= maxCode; n++ {
		next[n+1] = (next[n] + count[n]) << 1
	}
	free := 1 << width
	for symbol, n := range lengths {
		if n == 0 {
			continue
		}
		length := int(n)
		code := int(bits.Reverse16(uint16(next[length])) >> (16 - length))
		next[length]++
		if s.what[symbol] == 0 {
			continue // it has a code, but nothing may use it
		}
		free = put(table, width, free, longest, code, length, s.what[symbol], int(s.extra[symbol]))
	}
	return true
}

// isCode reports whether so many codes of each length leave nothing over.
func isCode(count [maxCode + 1]int, longest int) bool {
	if longest == 0 {
		return true
	}
	left := 1
	for n := 1; n <= longest; n++ {
		if left = left<<1 - count[n]; left < 0 {
			return false
		}
	}
	return left == 0 || longest == 1 && count[1] == 1
}

// put writes one code into the table and returns where it is free.
func put(table []entry, width, free, longest, code, length int, what entry, extra int) int {
	if length <= width {
		e := what | entry(length)<<8 | entry(length+extra)
		for i := code; i < 1<<width; i += 1 << length {
			table[i] = e
		}
		return free
	}
	rest := longest - width
	first := &table[code&(1<<width-1)]
	if *first == 0 {
		*first = isMore | entry(free)<<16 | entry(rest)<<8 | entry(width)
		clear(table[free : free+1<<rest])
		free += 1 << rest
	}
	part := table[*first>>16:][:1<<rest]
	e := what | entry(length-width)<<8 | entry(length-width+extra)
	for i := code >> width; i < 1<<rest; i += 1 << (length - width) {
		part[i] = e
	}
	return free
}
