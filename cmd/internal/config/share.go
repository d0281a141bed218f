package config

import (
	"errors"
	"strconv"
	"strings"
)

// A Share is an amount of disk: a Size, or a percentage of a whole that the
// setting's documentation names. At most one of the two is not zero.
type Share struct {
	Size    Size
	Percent float64 // up to 100
}

var errShare = errors.New(`want a size or a share, as in "200GB" or "5%"`)

// Of returns the share in bytes, where whole is what percentages are taken of.
func (s Share) Of(whole int64) int64 {
	if s.Percent > 0 {
		return int64(float64(whole) * s.Percent / 100)
	}
	return int64(s.Size)
}

// String writes s as ParseShare reads it.
func (s Share) String() string {
	if s.Percent > 0 {
		return strconv.FormatFloat(s.Percent, 'f', -1, 64) + "%"
	}
	return s.Size.String()
}

// ParseShare reads a size (ParseSize), or a number from 0 to 100 and a "%".
func ParseShare(text string) (Share, error) {
	number, isShare := strings.CutSuffix(strings.TrimSpace(text), "%")
	if !isShare {
		size, err := ParseSize(text)
		if err != nil {
			err = errShare
		}
		return Share{Size: size}, err
	}
	percent, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
	if err != nil || strings.Trim(number, "0123456789. ") != "" || percent > 100 {
		return Share{}, errShare
	}
	return Share{Percent: percent}, nil
}

// assignShare takes text, and whole numbers of bytes.
func assignShare(to *Share, value any) (err error) {
	if text, ok := value.(string); ok {
		*to, err = ParseShare(text)
		return err
	}
	to.Percent = 0
	if assignSize(&to.Size, value) != nil {
		return errShare
	}
	return nil
}
