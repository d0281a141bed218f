package config

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
)

// A Size is a number of bytes.
type Size int64

// errSize says how sizes are written.
var errSize = errors.New(`want a size, as in "500MB" or "2TiB"`)

// sizeForm is a number and a unit; sizeUnits are the units in bytes.
var (
	sizeForm  = regexp.MustCompile(`^([0-9]+(?:\.[0-9]+)?) ?([kKMGTP]i?)?B?$`)
	sizeUnits = map[string]float64{
		"": 1, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15,
		"ki": 1 << 10, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40, "Pi": 1 << 50,
	}
)

// ParseSize reads a number with a unit: kB, MB, GB, TB, PB are powers of 1000;
// KiB, MiB, GiB, TiB, PiB powers of 1024; none is bytes. The B may be left out.
func ParseSize(text string) (Size, error) {
	m := sizeForm.FindStringSubmatch(strings.TrimSpace(text))
	if m == nil {
		return 0, errSize
	}
	n, err := strconv.ParseFloat(m[1], 64)
	if n *= sizeUnits[m[2]]; err != nil || n >= math.MaxInt64 {
		return 0, errSize
	}
	return Size(n), nil
}

// String returns the shortest form that ParseSize reads back as the same size.
func (s Size) String() string {
	for _, u := range []struct {
		bytes Size
		name  string
	}{
		{1 << 40, "TiB"},
		{1e12, "TB"},
		{1 << 30, "GiB"},
		{1e9, "GB"},
		{1 << 20, "MiB"},
		{1e6, "MB"},
		{1 << 10, "KiB"},
		{1e3, "kB"},
	} {
		if s != 0 && s%u.bytes == 0 {
			return fmt.Sprintf("%d%s", s/u.bytes, u.name)
		}
	}
	return fmt.Sprintf("%dB", s)
}

// assignSize takes text, and whole numbers of bytes.
func assignSize(to *Size, value any) error {
	switch v := value.(type) {
	case int64:
		if v < 0 {
			return errSize
		}
		*to = Size(v)
		return nil
	case string:
		s, err := ParseSize(v)
		if err == nil {
			*to = s
		}
		return err
	}
	return errSize
}

// assignInt takes a whole number, also as the text of a variable.
func assignInt(to *int, value any) error {
	if text, ok := value.(string); ok {
		n, err := strconv.Atoi(text)
		if err != nil {
			return errors.New("want a whole number")
		}
		value = int64(n)
	}
	n, ok := value.(int64)
	if !ok {
		return errors.New("want a whole number")
	}
	*to = int(n)
	return nil
}
