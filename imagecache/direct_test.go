package imagecache

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/berth-hpc/berth/fault"
)

// TestTransferGoesOnWhereItBroke cuts a layer off twice: with a registry that
// sends parts, one that always sends all, and one that refuses to send parts.
func TestTransferGoesOnWhereItBroke(t *testing.T) {
	content := strings.Repeat("0123456789abcdef", 3<<16) // 3 MiB
	raw := tarOf(t, file("f", 0o644, content))
	l := layerOf(raw, raw, types.OCIUncompressedLayer)
	d, _ := l.Digest()
	for _, test := range []struct {
		name   string
		answer func(w http.ResponseWriter, from int) int // status, 0: refused already
	}{
		{"parts", func(w http.ResponseWriter, from int) int {
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(raw)-1, len(raw)))
			return http.StatusPartialContent
		}},
		{"whole", func(http.ResponseWriter, int) int { return http.StatusOK }},
		{"refused", func(http.ResponseWriter, int) int { return http.StatusRequestedRangeNotSatisfiable }},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := newTestRegistry(t)
			ref := r.push(t, "x:1", imageOfLayers(t, l))
			var sent, breaks int
			r.onRequest(func(w http.ResponseWriter, req *http.Request) bool {
				if !strings.HasSuffix(req.URL.Path, d.String()) {
					return false
				}
				from, status := 0, http.StatusOK
				if _, err := fmt.Sscanf(req.Header.Get("Range"), "bytes=%d-", &from); err == nil {
					status = test.answer(w, from)
				}
				if status == http.StatusRequestedRangeNotSatisfiable {
					w.WriteHeader(status)
					return true
				}
				body := raw
				if status == http.StatusPartialContent {
					body = raw[from:]
				}
				w.Header().Set("Content-Length", fmt.Sprint(len(body)))
				w.WriteHeader(status)
				if breaks++; breaks < 3 {
					body = body[:min(len(body)-1, breaks<<20)]
				}
				n, _ := io.Copy(w, bytes.NewReader(body))
				sent += int(n)
				return true
			})
			im, err := Pull(testContext(t), openStore(t), ref, FetchOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if readTree(t, im.Rootfs())["f"] != "file 0644 "+content {
				t.Error("other content")
			}
			if test.name == "parts" && sent > len(raw)+1<<20 {
				t.Errorf("%d bytes were sent for %d", sent, len(raw))
			}
		})
	}
}

// TestTransferThatNeverEnds breaks off each time. The site is to blame, and
// nothing is left.
func TestTransferThatNeverEnds(t *testing.T) {
	raw := tarOf(t, file("f", 0o644, "x"))
	l := layerOf(raw, raw, types.OCIUncompressedLayer)
	d, _ := l.Digest()
	r := newTestRegistry(t)
	ref := r.push(t, "x:1", imageOfLayers(t, l, l, l, l, l))
	r.onRequest(func(w http.ResponseWriter, req *http.Request) bool {
		if !strings.HasSuffix(req.URL.Path, d.String()) {
			return false
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(raw)))
		return true
	})
	s := openStore(t)
	_, err := Pull(testContext(t), s, ref, FetchOptions{})
	if err == nil || fault.Of(err) != fault.Site || !strings.Contains(err.Error(), "transfer layer 1 of 5") {
		t.Errorf("got %v", err)
	}
	checkNoLeftovers(t, s.Root())
}

// TestLayersPassTheDiskBy looks into the work folder while layers are read.
func TestLayersPassTheDiskBy(t *testing.T) {
	r := newTestRegistry(t)
	ref := r.push(t, "x:1", imageOf(t, hardImage(t)...))
	d, err := Resolve(testContext(t), ref, HostPlatform(), Network{})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	seen := 0
	err = Fetch(testContext(t), ref, d, dir, FetchOptions{Progress: func(p Progress) {
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			seen++
			if e.Name() == "layers" {
				t.Error("layers are on disk")
			}
		}
	}})
	if err != nil || seen == 0 {
		t.Errorf("%v, saw %d files", err, seen)
	}
}

// TestPullIsCancelled ends while layers wait in memory to be read.
func TestPullIsCancelled(t *testing.T) {
	r := newTestRegistry(t)
	var layers [][]byte
	for i := range 8 {
		layers = append(layers, tarOf(t, file(fmt.Sprint(i), 0o644, strings.Repeat("x", 6<<20))))
	}
	ref := r.push(t, "x:1", imageOf(t, layers...))
	ctx, cancel := context.WithCancel(testContext(t))
	defer cancel()
	s := openStore(t)
	_, err := Pull(ctx, s, ref, FetchOptions{Progress: func(p Progress) {
		if p.Phase == PhaseUnpack {
			cancel()
		}
	}})
	if err == nil {
		t.Error("it went on")
	}
	checkNoLeftovers(t, s.Root())
}
