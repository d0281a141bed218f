package imagecache

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"

	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/imagecache/store"
)

func TestExpectedBytes(t *testing.T) {
	const mb = 1 << 20
	for _, test := range []struct {
		name      string
		layers    []int64
		local     bool
		converter Converter
		want      int64
	}{
		{"streamed", []int64{100 * mb, 60 * mb}, false, Stream{}, 170*mb + roomSlack},
		{"unpacked", []int64{160 * mb}, false, Umoci{}, (170+5*160)*mb + roomSlack},
		{"unpacked from a file", []int64{160 * mb}, true, Umoci{}, (170+4*160)*mb + roomSlack},
		{"no layers", nil, false, Stream{}, roomSlack},
		{"a lie", []int64{-5, 16 * mb, -math.MaxInt64}, false, Stream{}, 17*mb + roomSlack},
	} {
		im := &image{}
		for _, size := range test.layers {
			im.layers = append(im.layers, v1.Descriptor{Size: size})
		}
		if got := expectedBytes(im, test.local, test.converter); got != test.want {
			t.Errorf("%s: %d, want %d", test.name, got, test.want)
		}
	}
	huge := &image{layers: []v1.Descriptor{{Size: math.MaxInt64}, {Size: math.MaxInt64}}}
	if got := expectedBytes(huge, false, Umoci{}); got < math.MaxInt64/16 {
		t.Errorf("sizes that overflow: %d", got)
	}
}

// noise is content that does not compress.
func noise(bytes int, seed uint64) string {
	b := make([]byte, bytes)
	r := rand.New(rand.NewPCG(seed, 0))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return string(b)
}

// smallStore is a store on a disk of so many bytes.
func smallStore(t *testing.T, bytes int) *store.Store {
	t.Helper()
	if unix.Geteuid() != 0 {
		t.Skip("needs root: mounts")
	}
	dir := t.TempDir()
	if err := unix.Mount("test", dir, "tmpfs", 0, fmt.Sprintf("size=%d", bytes)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	s, err := store.Open(filepath.Join(dir, "store"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (r *testRegistry) pushNoise(t *testing.T, name string, bytes int, seed uint64) Reference {
	t.Helper()
	return r.push(t, name, imageOf(t, tarOf(t, file("data", 0o644, noise(bytes, seed)))))
}

// TestPullMakesRoom pulls images of 1 MB onto a disk of 4 MB: the longest
// unused go, one in use and one that is kept stay, and when nothing may go the
// pull fails before it has asked for a layer.
func TestPullMakesRoom(t *testing.T) {
	r, s := newTestRegistry(t), smallStore(t, 4<<20)
	var images []store.Image
	opts := FetchOptions{Space: &store.Space{Store: s, Users: store.Processes{}}}
	for i := range 6 {
		ref := r.pushNoise(t, fmt.Sprintf("x:%d", i), 1<<20, uint64(i))
		im, err := Pull(testContext(t), s, ref, opts)
		if err != nil {
			t.Fatalf("image %d: %v", i, err)
		}
		images = append(images, im)
	}
	var layers atomic.Int64
	r.onRequest(func(_ http.ResponseWriter, req *http.Request) bool {
		if strings.Contains(req.URL.Path, "/blobs/") {
			layers.Add(1)
		}
		return false
	})
	if _, err := s.Get(images[5].Digest()); err != nil {
		t.Error(err)
	}
	if _, err := s.Get(images[0].Digest()); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("the first is still there: %v", err)
	}
	checkNoLeftovers(t, s.Root())

	left, err := s.List()
	if err != nil || len(left) < 2 {
		t.Fatalf("%v, %v", left, err)
	}
	for _, im := range left[1:] {
		if err := s.Keep(im.Digest(), "", store.Keep{}); err != nil {
			t.Fatal(err)
		}
	}
	f, err := left[0].Use(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	ref := r.pushNoise(t, "y:1", 2<<20, 99)
	layers.Store(0)
	_, err = Pull(testContext(t), s, ref, opts)
	if err == nil || !strings.Contains(err.Error(), "are needed, and what may be removed is not enough") || fault.Of(err) != fault.Site || fault.Remedy(err) == "" {
		t.Errorf("%v (%s)", err, fault.Remedy(err))
	}
	if layers.Load() != 1 { // the config
		t.Errorf("%d blobs were asked for", layers.Load())
	}
	if now, _ := s.List(); len(now) != len(left) {
		t.Errorf("%d images left, want %d", len(now), len(left))
	}
	checkNoLeftovers(t, s.Root())
}

// fullOnce says the first time that the disk is full.
type fullOnce struct {
	Stream
	tries *atomic.Int64
	until int64
}

func (c fullOnce) Convert(ctx context.Context, l LayerSource, work, out string, p ProgressFunc) error {
	if c.tries.Add(1) <= c.until {
		return fmt.Errorf("write: %w", unix.ENOSPC)
	}
	return c.Stream.Convert(ctx, l, work, out, p)
}

// TestPullStartsOverOnAFullDisk: what could go makes room once, and a disk
// that stays full ends the pull.
func TestPullStartsOverOnAFullDisk(t *testing.T) {
	for _, test := range []struct {
		name         string
		old          bool // there is an image that may go
		until, tries int64
		fails        bool
	}{
		{"nothing may go", false, 1, 1, true},
		{"room is made", true, 1, 2, false},
		{"it stays full", true, 9, 2, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			r, s := newTestRegistry(t), openStore(t)
			opts := FetchOptions{Space: &store.Space{Store: s, Users: store.Processes{}}}
			if test.old {
				if _, err := Pull(testContext(t), s, r.pushNoise(t, "old:1", 1000, 1), opts); err != nil {
					t.Fatal(err)
				}
			}
			var tries atomic.Int64
			opts.Converter = fullOnce{Stream{}, &tries, test.until}
			_, err := Pull(testContext(t), s, r.pushNoise(t, "new:1", 1000, 2), opts)
			if (err != nil) != test.fails || err != nil && (!IsFull(err) || fault.Remedy(err) == "") {
				t.Errorf("%v (%s)", err, fault.Remedy(err))
			}
			if tries.Load() != test.tries {
				t.Errorf("%d tries, want %d", tries.Load(), test.tries)
			}
			checkNoLeftovers(t, s.Root())
		})
	}
}
