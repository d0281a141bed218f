package imagefile

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
)

// A squashfs file says in its first block where it ends; what follows is read
// by nobody. There Berth keeps the config of an image that it saves, so that the
// tree stays what it is: JSON, its length in 8 bytes (little-endian), and a mark.
const (
	appendedMark = "\x00Berth's config\x00"
	maxAppended  = 1 << 20
)

// AppendConfig writes c behind a squashfs file, to w.
func AppendConfig(w io.Writer, c Config) error {
	data, err := json.Marshal(c)
	if err != nil {
		return err
	}
	if len(data) > maxAppended {
		return fmt.Errorf("the config has %d bytes", len(data))
	}
	data = binary.LittleEndian.AppendUint64(data, uint64(len(data)))
	_, err = w.Write(append(data, appendedMark...))
	return err
}

// AppendedConfig reads what AppendConfig wrote at the end of f, of size bytes.
// It returns false where there is nothing, or nothing that can be read.
func AppendedConfig(f io.ReaderAt, size int64) (c Config, ok bool) {
	tail := make([]byte, 8+len(appendedMark))
	at := size - int64(len(tail))
	if at < 0 {
		return c, false
	}
	if _, err := f.ReadAt(tail, at); err != nil || !bytes.HasSuffix(tail, []byte(appendedMark)) {
		return c, false
	}
	n := binary.LittleEndian.Uint64(tail)
	if n > maxAppended || int64(n) > at {
		return c, false
	}
	data := make([]byte, n)
	if _, err := f.ReadAt(data, at-int64(n)); err != nil || json.Unmarshal(data, &c) != nil {
		return Config{}, false
	}
	return c, true
}
