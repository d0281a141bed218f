package e2e

import (
	"bytes"
	"fmt"
	"net/http"
	"path"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/berth-hpc/berth/testdata/images"
	"github.com/berth-hpc/berth/testdata/registry/server"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// trickle is the address of a registry whose images take as long to pull as
// the test wants, and that never stalls.
const trickle = "10.97.0.1:5002"

// A trickling registry lives in the test's own process.
type trickling struct {
	reg *server.Started

	mu    sync.Mutex
	blobs map[string]*trickled // by digest
}

// A trickled blob is sent at a steady pace.
type trickled struct {
	data  []byte
	over  time.Duration // how long one transfer takes
	begun chan struct{} // closed when the first transfer begins
	once  sync.Once
	count int // transfers that began
	whole int // transfers that came to their end
}

func (s *site) startTrickling(t *testing.T) *trickling {
	t.Helper()
	r := &trickling{blobs: map[string]*trickled{}}
	r.reg = server.Start(t, server.Options{Wrap: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if blob := r.blob(path.Base(req.URL.Path)); blob != nil && req.Method == http.MethodGet {
				r.send(w, req, blob)
				return
			}
			next.ServeHTTP(w, req)
		})
	}})
	srv := &http.Server{Handler: r.reg, ReadHeaderTimeout: 10 * time.Second}
	listener := s.With(t).Listen("ctl", trickle)
	go func() { _ = srv.Serve(listener) }()
	t.Cleanup(func() { _ = srv.Close() })
	return r
}

func (r *trickling) blob(digest string) *trickled {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.blobs[digest]
}

func (r *trickling) send(w http.ResponseWriter, req *http.Request, b *trickled) {
	r.mu.Lock()
	b.count++
	r.mu.Unlock()
	b.once.Do(func() { close(b.begun) })
	w.Header().Set("Content-Length", fmt.Sprint(len(b.data)))
	const steps = 200
	tick := time.NewTicker(b.over / steps)
	defer tick.Stop()
	for i := range steps {
		select {
		case <-req.Context().Done():
			return
		case <-tick.C:
		}
		piece := b.data[len(b.data)*i/steps : len(b.data)*(i+1)/steps]
		if _, err := w.Write(piece); err != nil {
			return
		}
		_ = http.NewResponseController(w).Flush()
	}
	r.mu.Lock()
	b.whole++
	r.mu.Unlock()
}

// transfers says how often a blob was asked for, and sent to its end.
func (r *trickling) transfers(b *trickled) (count, whole int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return b.count, b.whole
}

// image publishes tiny with a layer that takes so long, and returns its name.
func (r *trickling) image(t *testing.T, name string, over time.Duration) (string, *trickled) {
	t.Helper()
	layer := r.push(t, name, name)
	digest, err := layer.Digest()
	if err != nil {
		t.Fatal(err)
	}
	blob := &trickled{data: tarOf(t, name), over: over, begun: make(chan struct{})}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.blobs[digest.String()] = blob
	return trickle + "/" + name + ":1", blob
}

// push publishes tiny with the layer called content as name:1.
func (r *trickling) push(t *testing.T, name, content string) v1.Layer {
	t.Helper()
	base, err := images.ReadLayout(images.Layout(t, "tiny"), images.Tag)
	if err != nil {
		t.Fatal(err)
	}
	layer := static.NewLayer(tarOf(t, content), types.OCIUncompressedLayer)
	img, err := mutate.AppendLayers(base, layer)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := images.Push(t.Context(), r.reg.Host, name+":1", img); err != nil {
		t.Fatal(err)
	}
	return layer
}

// tarOf is a layer of half a megabyte that no other name has.
func tarOf(t *testing.T, name string) []byte {
	t.Helper()
	img, err := images.FromFiles(v1.Config{}, []images.File{images.Text("share/"+name, strings.Repeat(name+"\n", 1<<19/(len(name)+1)))})
	if err != nil {
		t.Fatal(err)
	}
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	body, err := layers[0].Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	var data bytes.Buffer
	if _, err := data.ReadFrom(body); err != nil {
		t.Fatal(err)
	}
	return data.Bytes()
}
