package imagecache

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"

	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/imagecache/merge"
)

// Limits bound what an image may cost. They are for images made to do harm; the
// largest ones in use are far below them. Both converters keep to them.
type Limits struct {
	// Entries is how many files, folders and marks all layers together may
	// have; 0 means 10 million, about 6 GB of memory. An entry counts once
	// more for each further longName bytes of its name and target.
	Entries int
	// Bytes is how much all layers may unpack to: as tar streams, and as
	// files, holes included; 0 means 1 TiB.
	Bytes int64
	// Ratio is how many times larger than what was transferred the content of
	// a layer may be; 0 means 200.
	Ratio int
	// Free is what a layer may unpack to without regard to Ratio, in bytes; 0
	// means 16 GiB. Zeros compress well, and large files of them occur: a
	// lastlog as seen by a user with a large uid.
	Free int64
	// Layers is how many an image may have; 0 means 500.
	Layers int
}

const (
	defaultEntries = 10_000_000
	defaultBytes   = 1 << 40
	defaultRatio   = 200
	defaultFree    = 16 << 30
	defaultLayers  = 500
	// longName is how much of a name and a target an entry has for itself.
	longName = 512
)

func (l Limits) orDefault() Limits {
	l.Entries = orElse(l.Entries, defaultEntries)
	l.Bytes = orElse(l.Bytes, defaultBytes)
	l.Ratio = orElse(l.Ratio, defaultRatio)
	l.Free = orElse(l.Free, defaultFree)
	l.Layers = orElse(l.Layers, defaultLayers)
	return l
}

func orElse[T int | int64](v, otherwise T) T {
	if v <= 0 {
		return otherwise
	}
	return v
}

// limited is a Converter that has limits.
type limited interface{ limits() Limits }

func (s Stream) limits() Limits { return s.Limits.orDefault() }
func (u Umoci) limits() Limits  { return u.Limits.orDefault() }

func limitsOf(c Converter) Limits {
	if l, ok := c.(limited); ok {
		return l.limits()
	}
	return Limits{}.orDefault()
}

// checkLayers says whether an image has too many of them.
func (l Limits) checkLayers(n int) error {
	if n > l.Layers {
		return tooLarge("limits.layers", "%d layers, more than %d", n, l.Layers)
	}
	return nil
}

// A budget is what the layers of one image may still cost.
type budget struct {
	limits  Limits
	entries int
	bytes   int64
}

func (l Limits) budget() *budget { return &budget{limits: l, entries: l.Entries, bytes: l.Bytes} }

// spend takes an entry out of the budget.
func (b *budget) spend(h *tar.Header) error {
	if b.entries -= 1 + (len(h.Name)+len(h.Linkname))/longName; b.entries < 0 {
		return b.tooMany()
	}
	if b.bytes -= max(h.Size, 0); b.bytes < 0 {
		return b.limits.tooManyBytes()
	}
	return nil
}

func (b *budget) tooMany() error {
	return tooLarge("limits.entries", "more than %d files and folders", b.limits.Entries)
}

// ofTree makes the error of a tree that is full one that says so to the user.
func (b *budget) ofTree(err error) error {
	if errors.Is(err, merge.ErrTooMany) {
		return b.tooMany()
	}
	return err
}

func (l Limits) tooManyBytes() error {
	return tooLarge("limits.bytes", "layers that unpack to more than %d bytes", l.Bytes)
}

func tooLarge(setting, format string, a ...any) error {
	return &fault.Error{
		Op: "read image", Blame: fault.User,
		Remedy: "use an image without what it does not need, or, if it is meant to be so large, have the admin raise " + setting,
		Err:    fmt.Errorf("the image has "+format+" ("+setting+")", a...),
	}
}

// inflating bounds what a layer unpacks to: bombs end here, before they fill
// memory, disk or a day.
type inflating struct {
	plain  io.Reader     // the tar stream
	packed *countedBytes // what it is made from
	limits Limits
	before int64 // bytes of the layers before
	out    int64
}

// Read implements io.Reader.
func (i *inflating) Read(p []byte) (int, error) {
	n, err := i.plain.Read(p)
	i.out += int64(n)
	switch {
	case i.before+i.out > i.limits.Bytes:
		return n, i.limits.tooManyBytes()
	case i.out > i.limits.Free && i.out/int64(i.limits.Ratio) > i.packed.n:
		return n, tooLarge("limits.ratio", "a layer that unpacks to more than %d times its size", i.limits.Ratio)
	}
	return n, err
}

// countedBytes counts what is read through it.
type countedBytes struct {
	io.Reader
	n int64
}

// Read implements io.Reader.
func (c *countedBytes) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.n += int64(n)
	return n, err
}
