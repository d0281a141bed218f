package soak

import (
	"cmp"
	"net/http"
	"strings"
	"sync"

	"github.com/berth-hpc/berth/testdata/registry/server"
)

// A weather is over registries: what it is at a moment happens to all requests
// for images. Its faults are those of server.Faults.
type weather struct {
	mu  sync.Mutex
	how string // of server.Faults; "" in good weather
	set int    // how often it changed
}

// ordinary is what holds in good weather: layers come a little late, or no
// pull would last for long enough to be hit.
const ordinary = "layer.slow.ms400"

// cut is the weather in which every connection is closed without an answer.
const cut = "cut"

// change sets the weather, until the returned function is called or somebody
// else changes it.
func (w *weather) change(how string) (end func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.set++
	w.how = how
	mine := w.set
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.set == mine {
			w.how = ""
		}
	}
}

func (w *weather) now() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return cmp.Or(w.how, ordinary)
}

// over puts the weather in front of a registry.
func (w *weather) over(registry http.Handler) http.Handler {
	faults := server.Faults(registry)
	return http.HandlerFunc(func(out http.ResponseWriter, req *http.Request) {
		how := w.now()
		if how == cut {
			panic(http.ErrAbortHandler) // closes the connection
		}
		rest, ok := strings.CutPrefix(req.URL.Path, "/v2/")
		if !ok || rest == "" || req.Method != http.MethodGet && req.Method != http.MethodHead {
			registry.ServeHTTP(out, req)
			return
		}
		bad := req.Clone(req.Context())
		bad.URL.Path = "/v2/faults/" + how + "/" + rest
		faults.ServeHTTP(out, bad)
	})
}
