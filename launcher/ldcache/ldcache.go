// Package ldcache reads and writes /etc/ld.so.cache, by which glibc's loader
// finds libraries outside of its default folders: the format that ldconfig
// has written since glibc 2.2 ("glibc-ld.so.cache1.1", sysdeps/generic/dl-cache.h).
package ldcache

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
)

// An Entry says in which file the loader finds a library.
type Entry struct {
	Name  string // its soname
	Path  string
	Flags uint32 // kind of machine and C library
	HWCap uint64 // what the processor must have
}

const (
	magic      = "glibc-ld.so.cache1.1"
	oldMagic   = "ld.so-1.7.0"
	headerSize = 48
	entrySize  = 24
	// subfolder marks an entry of a glibc-hwcaps folder, whose names are in a
	// section of their own (glibc 2.33).
	subfolder = 1 << 62
)

var errFormat = errors.New("it is no ld.so.cache that Berth can read")

// Flags returns what entries of a library for this machine are marked with,
// and 0 where that is not known.
func Flags(m elf.Machine) uint32 {
	const libc6 = 3
	switch m {
	case elf.EM_X86_64:
		return 0x0300 | libc6
	case elf.EM_AARCH64:
		return 0x0a00 | libc6
	case elf.EM_PPC64:
		return 0x0500 | libc6
	case elf.EM_386:
		return libc6
	}
	return 0
}

// Parse reads a cache. Entries of glibc-hwcaps folders are left out: they are
// faster forms of libraries that have an entry without, or lie in a folder
// that the loader looks through anyway.
func Parse(data []byte) ([]Entry, error) {
	start := bytes.Index(data, []byte(magic))
	if start < 0 || start > 0 && !bytes.HasPrefix(data, []byte(oldMagic)) || len(data) < start+headerSize {
		return nil, errFormat
	}
	data = data[start:]
	count := int64(binary.NativeEndian.Uint32(data[20:]))
	if headerSize+count*entrySize > int64(len(data)) {
		return nil, errFormat
	}
	var entries []Entry
	for i := range count {
		e, err := parseEntry(data, data[headerSize+i*entrySize:])
		if err != nil {
			return nil, err
		}
		if e.HWCap&subfolder == 0 {
			entries = append(entries, e)
		}
	}
	return entries, nil
}

func parseEntry(all, raw []byte) (Entry, error) {
	name, ok1 := text(all, binary.NativeEndian.Uint32(raw[4:]))
	path, ok2 := text(all, binary.NativeEndian.Uint32(raw[8:]))
	if !ok1 || !ok2 {
		return Entry{}, errFormat
	}
	return Entry{name, path, binary.NativeEndian.Uint32(raw), binary.NativeEndian.Uint64(raw[16:])}, nil
}

func text(all []byte, at uint32) (string, bool) {
	if int64(at) >= int64(len(all)) {
		return "", false
	}
	end := bytes.IndexByte(all[at:], 0)
	if end < 0 {
		return "", false
	}
	return string(all[at : int(at)+end]), true
}

// Add puts libraries before those of the same name and kind in entries.
func Add(entries, libraries []Entry) []Entry {
	rest := slices.DeleteFunc(slices.Clone(entries), func(e Entry) bool {
		return slices.ContainsFunc(libraries, func(l Entry) bool { return l.Name == e.Name && l.Flags == e.Flags })
	})
	return append(slices.Clone(libraries), rest...)
}

// Format writes a cache. The loader searches by halves, so entries stand in
// its own order, the greatest name first.
func Format(entries []Entry) []byte {
	entries = slices.Clone(entries)
	slices.SortStableFunc(entries, func(a, b Entry) int { return compare(b.Name, a.Name) })
	var table, strs []byte
	base := uint32(headerSize + len(entries)*entrySize)
	add := func(s string) uint32 {
		at := base + uint32(len(strs))
		strs = append(append(strs, s...), 0)
		return at
	}
	for _, e := range entries {
		table = binary.NativeEndian.AppendUint32(table, e.Flags)
		table = binary.NativeEndian.AppendUint32(table, add(e.Name))
		table = binary.NativeEndian.AppendUint32(table, add(e.Path))
		table = binary.NativeEndian.AppendUint32(table, 0)
		table = binary.NativeEndian.AppendUint64(table, e.HWCap)
	}
	header := append([]byte(magic), make([]byte, headerSize-len(magic))...)
	binary.NativeEndian.PutUint32(header[20:], uint32(len(entries)))
	binary.NativeEndian.PutUint32(header[24:], uint32(len(strs)))
	header[28] = endianness()
	return slices.Concat(header, table, strs)
}

// endianness is the header's flag: 2 little, 3 big.
func endianness() byte {
	if binary.NativeEndian.Uint16([]byte{1, 0}) == 1 {
		return 2
	}
	return 3
}

// compare is the loader's order of names (_dl_cache_libcmp): runs of digits
// are numbers, and digits come after everything else.
func compare(a, b string) int {
	for a != "" && b != "" {
		da, db := digit(a[0]), digit(b[0])
		switch {
		case da && db:
			na, resta := number(a)
			nb, restb := number(b)
			if c := compareNumbers(na, nb); c != 0 {
				return c
			}
			a, b = resta, restb
		case da:
			return 1
		case db:
			return -1
		case a[0] != b[0]:
			return int(a[0]) - int(b[0])
		default:
			a, b = a[1:], b[1:]
		}
	}
	return len(a) - len(b)
}

func digit(c byte) bool { return c >= '0' && c <= '9' }

func number(s string) (digits, rest string) {
	n := strings.IndexFunc(s, func(r rune) bool { return r < '0' || r > '9' })
	if n < 0 {
		n = len(s)
	}
	return strings.TrimLeft(s[:n], "0"), s[n:]
}

func compareNumbers(a, b string) int {
	if len(a) != len(b) {
		return len(a) - len(b)
	}
	return strings.Compare(a, b)
}
