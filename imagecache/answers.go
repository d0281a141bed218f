package imagecache

import (
	"context"
	"time"

	"github.com/berth-hpc/berth/imagecache/store"
)

// AnswerTTL is how long Answers believes what a registry said of a tag.
const AnswerTTL = 10 * time.Minute

// Answers remembers for one user which digest a reference had, so that an
// array of a thousand jobs asks the registry once. Any number of processes
// may use one folder at once.
type Answers struct {
	dir string
	now func() time.Time
}

// NewAnswers keeps answers in dir, which is made when needed; usually
// ${XDG_CACHE_HOME:-~/.cache}/berth/resolve.
func NewAnswers(dir string) Answers { return Answers{dir: dir, now: time.Now} }

// Resolve is imagecache.Resolve, unless dir holds an answer younger than
// AnswerTTL. Answers about files are not kept. That an answer cannot be
// kept is no error.
func (a Answers) Resolve(ctx context.Context, ref Reference, platform Platform, net Network) (store.Digest, error) {
	panic("soon")
}
