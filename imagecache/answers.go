package imagecache

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"time"

	"github.com/berth-hpc/berth/imagecache/store"
)

// Answers remembers for one user which digest a reference had, so that an
// array of a thousand jobs asks the registry once. Any number of processes
// may use one folder at once.
type Answers struct {
	dir string
	ttl time.Duration
	now func() time.Time
}

// NewAnswers keeps answers for ttl in dir, which is made when needed; usually
// ${XDG_CACHE_HOME:-~/.cache}/berth/resolve.
func NewAnswers(dir string, ttl time.Duration) Answers {
	return Answers{dir: dir, ttl: ttl, now: time.Now}
}

// answer is what one file of the folder holds.
type answer struct {
	Reference string       `json:"reference"`
	Platform  string       `json:"platform"`
	User      string       `json:"user,omitempty"`
	Digest    store.Digest `json:"digest"`
	Asked     time.Time    `json:"asked"`
}

// Resolve is imagecache.Resolve, unless dir holds an answer younger than
// the time to live. Answers about files are not kept. That an answer cannot be
// kept is no error.
func (a Answers) Resolve(ctx context.Context, ref Reference, platform Platform, net Network) (store.Digest, error) {
	if ref.kind != Registry {
		return Resolve(ctx, ref, platform, net)
	}
	ask := answer{Reference: ref.String(), Platform: orHost(platform).String(), User: ref.user}
	if d, ok := a.recall(ask); ok {
		return d, nil
	}
	d, err := Resolve(ctx, ref, platform, net)
	if err == nil {
		ask.Digest, ask.Asked = d, a.now()
		a.keep(ask)
	}
	return d, err
}

// path names the file of an answer by what was asked.
func (a Answers) path(ask answer) string {
	sum := sha256.Sum256([]byte(ask.Reference + "\x00" + ask.Platform + "\x00" + ask.User))
	return filepath.Join(a.dir, hex.EncodeToString(sum[:16])+".json")
}

func (a Answers) recall(ask answer) (store.Digest, bool) {
	raw, err := a.readOwn(a.path(ask))
	if err != nil {
		return store.Digest{}, false
	}
	var had answer
	if json.Unmarshal(raw, &had) != nil || had.Digest.IsZero() ||
		had.Reference != ask.Reference || had.Platform != ask.Platform || had.User != ask.User {
		return store.Digest{}, false
	}
	age := a.now().Sub(had.Asked)
	return had.Digest, age >= 0 && age < a.ttl
}

// keep writes the answer, if that is possible, and removes old ones.
func (a Answers) keep(ask answer) {
	if os.MkdirAll(a.dir, 0o700) != nil {
		return
	}
	a.Sweep()
	_ = store.WriteJSON(a.path(ask), 0o600, ask)
}

// Sweep removes the answers that are too old to be used again.
func (a Answers) Sweep() {
	entries, _ := os.ReadDir(a.dir)
	for _, e := range entries {
		if info, err := e.Info(); err == nil && a.now().Sub(info.ModTime()) > a.ttl {
			_ = os.Remove(filepath.Join(a.dir, e.Name()))
		}
	}
}
