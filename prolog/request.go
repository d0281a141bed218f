package prolog

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/berth-hpc/berth/imagecache/store"
	"github.com/berth-hpc/berth/launcher/wire"
	"github.com/berth-hpc/berth/policy"
	"github.com/berth-hpc/berth/prolog/jobstate"
)

// maxReference bounds a user's reference, in bytes. Docker allows 255 for a
// repository and 128 for a tag.
const maxReference = 1024

// readMessage reads one message in package wire's format up to the end of r.
func readMessage(r io.Reader) (wire.Message, error) {
	data, err := io.ReadAll(io.LimitReader(r, wire.MaxMessage+1))
	if err != nil {
		return nil, fmt.Errorf("read request: %w", err)
	}
	return wire.Decode(data)
}

// parseRequest checks a request to prepare an image. What the user wrote must
// be one printable line; whether it names an image is the fetcher's question.
func parseRequest(m wire.Message) (jobstate.Request, error) {
	r := jobstate.Request{Image: m.Get("image"), Digest: m.Get("digest")}
	var err error
	if r.Job, err = jobID(m); err != nil {
		return r, err
	}
	for _, n := range []struct {
		key  string
		into *uint32
	}{{"uid", &r.UID}, {"gid", &r.GID}} {
		if *n.into, err = one(m, n.key); err != nil {
			return r, err
		}
	}
	if err := checkReference(r.Image); err != nil {
		return r, fmt.Errorf("request: image: %w", err)
	}
	if r.Digest != "" {
		if _, err := store.ParseDigest(r.Digest); err != nil {
			return r, fmt.Errorf("request: digest: %w", err)
		}
	}
	return r, nil
}

// once reads a value that must be given exactly once.
func once(m wire.Message, key string) (string, error) {
	values := m.All(key)
	if len(values) != 1 {
		return "", fmt.Errorf("request: %d values for %s", len(values), key)
	}
	return values[0], nil
}

func jobID(m wire.Message) (jobstate.JobID, error) {
	text, err := once(m, "job")
	if err != nil {
		return "", err
	}
	id, err := jobstate.ParseJobID(text)
	if err != nil {
		return "", fmt.Errorf("request: job: %w", err)
	}
	return id, nil
}

// one reads a number that must be given exactly once.
func one(m wire.Message, key string) (uint32, error) {
	text, err := once(m, key)
	if err != nil {
		return 0, err
	}
	n, err := parseNumber(text)
	if err != nil {
		return 0, fmt.Errorf("request: %s: %w", key, err)
	}
	return n, nil
}

// toldOf is what the prolog says of the job; false where it says nothing. An
// older Slurm's does not know, nor does the helper of a step, which hears from
// a process that its user can lead by the nose.
func toldOf(m wire.Message) (policy.Job, bool) {
	j := policy.Job{Account: m.Get("account"), Partition: m.Get("partition")}
	return j, j.Partition != ""
}

func checkReference(s string) error {
	switch {
	case s == "":
		return errors.New("missing")
	case len(s) > maxReference:
		return fmt.Errorf("longer than %d bytes", maxReference)
	case !utf8.ValidString(s):
		return errors.New("not UTF-8")
	case strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || (r >= 0x7f && r < 0xa0) }):
		return errors.New("holds control characters")
	}
	return nil
}

// wait is how long the sender wants Prepare to wait: milliseconds in `wait`,
// at most and by default otherwise.
func wait(m wire.Message, otherwise time.Duration) time.Duration {
	ms, err := parseNumber(m.Get("wait"))
	if err != nil {
		return otherwise
	}
	return min(otherwise, time.Duration(ms)*time.Millisecond)
}
