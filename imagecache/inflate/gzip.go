package inflate

import (
	"errors"
	"hash/crc32"
	"io"
)

// Flags of a member's header.
const (
	flagHeaderSum = 1 << 1
	flagExtra     = 1 << 2
	flagName      = 1 << 3
	flagComment   = 1 << 4
)

var (
	errHeader   = errors.New("the gzip header is damaged")
	errChecksum = errors.New("the gzip checksum does not match")
)

// A member is the state of the one that is being read.
type member struct {
	inside  bool
	follows bool   // another one
	sum     uint32 // of its content, CRC-32
	size    uint32 // modulo 2^32
	headed  uint32 // CRC-32 of its header so far
}

// next fills out with what comes next. At the end of the stream, which is where
// the input ends after a member, it returns io.EOF, perhaps with data.
func (d *decoder) next(out []byte) (data []byte, err error) {
	d.begin(out)
	from := d.w
	for d.w <= d.limit && err == nil {
		if !d.member.inside {
			if err = d.memberHeader(); err != nil {
				break
			}
			d.low = d.w // matches do not reach into another member
			d.member.inside = true
		}
		start := d.w
		var ended bool
		ended, err = d.blocks()
		d.member.sum = crc32.Update(d.member.sum, crc32.IEEETable, d.out[start:d.w])
		d.member.size += uint32(d.w - start)
		if ended {
			err = d.memberTrailer()
		}
	}
	return d.out[from:d.w], err
}

func (d *decoder) memberTrailer() error {
	if _, err := d.take(d.n & 7); err != nil {
		return err
	}
	sum, err := d.take(32)
	if err != nil {
		return err
	}
	size, err := d.take(32)
	if err != nil {
		return err
	}
	if sum != d.member.sum || size != d.member.size {
		return errChecksum
	}
	d.member, d.last = member{follows: true}, false
	return nil
}

// memberHeader reads a header. The input may end before it.
func (d *decoder) memberHeader() error {
	if d.refill(); d.n == 0 {
		if d.readErr == io.EOF && !d.member.follows {
			return io.ErrUnexpectedEOF
		}
		return d.readErr
	}
	var head [10]byte
	for i := range head {
		var err error
		if head[i], err = d.headerByte(); err != nil {
			return err
		}
	}
	if head[0] != 0x1f || head[1] != 0x8b || head[2] != 8 {
		return errHeader
	}
	flags := head[3]
	if flags&flagExtra != 0 {
		if err := d.skipExtra(); err != nil {
			return err
		}
	}
	for _, flag := range []byte{flagName, flagComment} {
		if flags&flag != 0 {
			if err := d.skipString(); err != nil {
				return err
			}
		}
	}
	if flags&flagHeaderSum == 0 {
		return nil
	}
	want := uint16(d.member.headed)
	if got, err := d.take(16); err != nil || uint16(got) != want {
		return errors.Join(errHeader, err)
	}
	return nil
}

func (d *decoder) headerByte() (byte, error) {
	v, err := d.take(8)
	d.member.headed = crc32.Update(d.member.headed, crc32.IEEETable, []byte{byte(v)})
	return byte(v), err
}

func (d *decoder) skipExtra() error {
	low, err := d.headerByte()
	if err != nil {
		return err
	}
	high, err := d.headerByte()
	for range int(high)<<8 | int(low) {
		if err == nil {
			_, err = d.headerByte()
		}
	}
	return err
}

// skipString skips a name or a comment. Those of more than 511 bytes are
// refused, as by compress/gzip.
func (d *decoder) skipString() error {
	for range 512 {
		if b, err := d.headerByte(); err != nil || b == 0 {
			return err
		}
	}
	return errHeader
}
