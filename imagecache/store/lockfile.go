package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"
)

// lockHalf is the size of each half of a lock's file, in bytes: the holder,
// which stands for good, and its last beat, which one write replaces.
const lockHalf = 512

// A lockFile is what a lock's file says. A file that makes no sense has a
// holder without a name: it counts as dead when it stays as it is.
type lockFile struct {
	head, tail string // both halves as they are
	holder     Holder
	beat       beat
}

// A beat shows that the holder lives.
type beat struct {
	Count    uint64 `json:"beat"`
	Progress string `json:"progress,omitempty"` // one line
}

func newLockFile(h Holder) lockFile {
	return lockFile{head: half(h), tail: newTail(0, ""), holder: h}
}

func newTail(count uint64, progress string) string {
	text := half(beat{Count: count, Progress: clip(progress, 400)})
	if strings.TrimSpace(text) == "" { // much of it had to be escaped
		text = half(beat{Count: count})
	}
	return text
}

// half is v as JSON, filled up with spaces.
func half(v any) string {
	data, err := json.Marshal(v)
	if err != nil || len(data) >= lockHalf {
		return strings.Repeat(" ", lockHalf-1) + "\n"
	}
	return string(data) + strings.Repeat(" ", lockHalf-1-len(data)) + "\n"
}

func (f lockFile) bytes() []byte { return []byte(f.head + f.tail) }

// readLockFile reads anew what another node may just have written.
func readLockFile(path string) (lockFile, error) {
	f, err := openRegular(path)
	if err != nil {
		return lockFile{}, vanished(path, err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, 2*lockHalf))
	if err != nil {
		return lockFile{}, vanished(path, err)
	}
	text := string(data) + strings.Repeat(" ", 2*lockHalf-len(data))
	l := lockFile{head: text[:lockHalf], tail: text[lockHalf:]}
	_ = json.Unmarshal([]byte(l.head), &l.holder)
	_ = json.Unmarshal([]byte(l.tail), &l.beat)
	return l, nil
}

// vanished makes a file that was removed under the reader's hands (ESTALE, over
// NFS) one that does not exist.
func vanished(path string, err error) error {
	if errors.Is(err, syscall.ESTALE) {
		return fmt.Errorf("%s: %w", path, syscall.ENOENT)
	}
	return err
}
