// Package wire is the message format that the Slurm plugin (C), the step's
// helper and the tasks speak over sequenced-packet sockets: records
// `key=value`, each ended by a NUL byte. The C side is launcher/join/wire.h.
//
// The format has no escapes and no nesting, so that a privileged reader can
// decode what a user wrote without interpreting any of it.
package wire

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
)

// MaxMessage is the largest message either side sends, in bytes. It leaves
// room below the smallest default socket buffer of Linux (208 KiB).
const MaxMessage = 64 << 10

// A Record is one `key=value`. A value may hold any byte but NUL.
type Record struct{ Key, Value string }

// A Message is an ordered list of records; keys may repeat.
type Message []Record

// Add returns m with one more record.
func (m Message) Add(key, value string) Message { return append(m, Record{key, value}) }

// Get returns the last value of key, or "" when there is none.
func (m Message) Get(key string) string {
	for i := len(m) - 1; i >= 0; i-- {
		if m[i].Key == key {
			return m[i].Value
		}
	}
	return ""
}

// All returns every value of key in order.
func (m Message) All(key string) []string {
	var vs []string
	for _, r := range m {
		if r.Key == key {
			vs = append(vs, r.Value)
		}
	}
	return vs
}

// Encode returns the bytes of m. It refuses keys and values that the other
// side could read as something else, and messages over MaxMessage.
func (m Message) Encode() ([]byte, error) { return m.EncodeUpTo(MaxMessage) }

// EncodeUpTo is Encode with another limit, for what is kept in a file.
func (m Message) EncodeUpTo(limit int) ([]byte, error) {
	var b bytes.Buffer
	for _, r := range m {
		if !validKey(r.Key) {
			return nil, fmt.Errorf("encode message: bad key %q", r.Key)
		}
		if strings.IndexByte(r.Value, 0) >= 0 {
			return nil, fmt.Errorf("encode message: NUL byte in the value of %s", r.Key)
		}
		b.WriteString(r.Key)
		b.WriteByte('=')
		b.WriteString(r.Value)
		b.WriteByte(0)
	}
	if b.Len() > limit {
		return nil, fmt.Errorf("encode message: %d bytes are more than %d", b.Len(), limit)
	}
	return b.Bytes(), nil
}

// Decode reads the bytes of one message.
func Decode(b []byte) (Message, error) { return DecodeUpTo(b, MaxMessage) }

// DecodeUpTo is Decode with another limit, for what was kept in a file.
func DecodeUpTo(b []byte, limit int) (Message, error) {
	if len(b) > limit {
		return nil, fmt.Errorf("decode message: %d bytes are more than %d", len(b), limit)
	}
	var m Message
	for len(b) > 0 {
		rec, rest, ended := bytes.Cut(b, []byte{0})
		if !ended {
			return nil, errors.New("decode message: the last record is cut off")
		}
		key, value, ok := strings.Cut(string(rec), "=")
		if !ok || !validKey(key) {
			return nil, fmt.Errorf("decode message: bad record %q", rec)
		}
		m = append(m, Record{key, value})
		b = rest
	}
	return m, nil
}

func validKey(k string) bool {
	if k == "" {
		return false
	}
	for i := range len(k) {
		if c := k[i]; (c < 'a' || c > 'z') && c != '_' {
			return false
		}
	}
	return true
}
