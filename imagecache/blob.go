package imagecache

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"
)

// verifier passes a stream through and ends it with an error instead of io.EOF
// unless the stream had the digest and size that were named.
type verifier struct {
	r    io.Reader
	what string
	want v1.Hash
	size int64 // negative: any
	hash hash.Hash
	n    int64
	bad  func(what, want, got string) error // who is to blame for a mismatch
}

func verify(r io.Reader, what string, want v1.Hash, size int64) (*verifier, error) {
	if want.Algorithm != "sha256" {
		return nil, damaged("%s is named by a %s digest; only sha256 is supported", what, quote(want.Algorithm))
	}
	bad := func(what, want, got string) error { return mismatch(what, want, got) }
	return &verifier{r: r, what: what, want: want, size: size, hash: sha256.New(), bad: bad}, nil
}

// Read implements io.Reader.
func (v *verifier) Read(p []byte) (int, error) {
	n, err := v.r.Read(p)
	v.hash.Write(p[:n])
	v.n += int64(n)
	if v.size >= 0 && v.n > v.size {
		return 0, v.bad(v.what, fmt.Sprintf("%d bytes", v.size), "more")
	}
	if err == io.EOF {
		if bad := v.check(); bad != nil {
			return 0, bad
		}
	}
	return n, err
}

func (v *verifier) check() error {
	if v.size >= 0 && v.n != v.size {
		return v.bad(v.what, fmt.Sprintf("%d bytes", v.size), fmt.Sprintf("%d bytes", v.n))
	}
	if got := hex.EncodeToString(v.hash.Sum(nil)); got != v.want.Hex {
		return v.bad(v.what, v.want.String(), "sha256:"+got)
	}
	return nil
}

// readBlob returns a small blob, verified.
func readBlob(ctx context.Context, src source, desc v1.Descriptor, limit int64) ([]byte, error) {
	raw, err := readBlobOnce(ctx, src, desc, limit)
	for isElsewhere(err) && ctx.Err() == nil {
		raw, err = readBlobOnce(ctx, src, desc, limit)
	}
	return raw, err
}

func readBlobOnce(ctx context.Context, src source, desc v1.Descriptor, limit int64) ([]byte, error) {
	var body io.ReadCloser
	var err error
	bad := func(what, want, got string) error { return mismatch(what, want, got) }
	if registry, ok := src.(*registrySource); ok {
		r := &resumed{ctx: ctx, src: registry, desc: desc}
		body, bad = r, r.blame
	} else if body, err = src.blob(ctx, desc); err != nil {
		return nil, err
	}
	defer body.Close()
	v, err := verify(body, "config", desc.Digest, desc.Size)
	if err != nil {
		return nil, err
	}
	v.bad = bad
	return readLimited(v, limit)
}

// readLimited reads r to its end, which has to come within limit bytes.
func readLimited(r io.Reader, limit int64) ([]byte, error) {
	raw, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(raw)) > limit {
		err = tooLarge("limits.manifest", "a manifest or config of more than %d bytes", limit)
	}
	return raw, err
}

func isReset(err error) bool {
	return errors.Is(err, unix.ECONNRESET) || errors.Is(err, unix.EPIPE)
}
