package warm

import (
	"bytes"
	"fmt"

	"github.com/BurntSushi/toml"

	"github.com/berth-hpc/berth/imagecache/store"
)

const lockHeader = `# Which digest each image of a list has, written by berth warm --lock: the same
# on all nodes. It is a list itself: berth warm -f reads it. To move to what the
# tags mean today: berth warm --lock FILE --update.
`

// Encode writes entries with their digests as a lock file: a list in TOML that
// Parse reads back, one [[image]] for each platform.
func Encode(entries []Entry) ([]byte, error) {
	var f file
	for _, e := range entries {
		im := image{Name: e.Name(), Keep: e.Keep.String(), Groups: e.Groups}
		if !e.Digest.IsZero() {
			im.Digest = e.Digest.String()
		}
		if e.Platform != "" {
			im.Platforms = []string{e.Platform}
		}
		f.Images = append(f.Images, im)
	}
	var b bytes.Buffer
	b.WriteString(lockHeader)
	if err := toml.NewEncoder(&b).Encode(f); err != nil {
		return nil, fmt.Errorf("write lock file: %w", err)
	}
	return b.Bytes(), nil
}

// lockKey tells what a digest is for.
type lockKey struct{ name, platform string }

// A Lock is the digests of a lock file.
type Lock map[lockKey]store.Digest

// NewLock returns the digests of l.
func NewLock(l *List) Lock {
	k := Lock{}
	for _, e := range l.Entries {
		if !e.Digest.IsZero() {
			k[lockKey{e.Name(), e.Platform}] = e.Digest
		}
	}
	return k
}

// Digest returns what is locked for e, zero for nothing.
func (k Lock) Digest(e Entry) store.Digest { return k[lockKey{e.Name(), e.Platform}] }
