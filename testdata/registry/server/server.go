// Package server is the container registry of the tests: the registry of
// go-containerregistry, with what it stores kept on disk and every request
// counted and written to an access log.
//
// It speaks plain HTTP and knows no users. A request passes a chain of
// http.Handlers, outermost first:
//
//	accessLog   counts the request and logs its outcome
//	Wrap        whatever a test puts in front, e.g. to fail on purpose
//	journal     keeps manifests, so that they outlive the process
//	registry    go-containerregistry's own
package server

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"path/filepath"

	"github.com/google/go-containerregistry/pkg/registry"
)

// Options says how a registry keeps and logs. The zero Options gives one
// that holds everything in memory and logs nothing.
type Options struct {
	Dir  string    // folder for blobs and manifests; "" keeps both in memory
	Log  io.Writer // access log; nil for none
	Wrap func(http.Handler) http.Handler
}

// A Registry is an http.Handler for the whole of a registry's address.
// Close it to release its folder; it starts no goroutine.
type Registry struct {
	*accessLog
	journal *journal
}

// New opens a registry. What an earlier one left in opts.Dir is served again.
// Two registries must not use one folder at the same time.
func New(opts Options) (*Registry, error) {
	quiet := registry.Logger(log.New(io.Discard, "", 0))
	if opts.Dir == "" {
		return &Registry{accessLog: newAccessLog(wrap(opts, registry.New(quiet)), opts.Log)}, nil
	}
	blobs, err := newDiskBlobs(filepath.Join(opts.Dir, "blobs"))
	if err != nil {
		return nil, err
	}
	core := registry.New(quiet, registry.WithBlobHandler(blobs))
	j, err := openJournal(filepath.Join(opts.Dir, "manifests.jsonl"), core)
	if err != nil {
		return nil, err
	}
	return &Registry{accessLog: newAccessLog(wrap(opts, j), opts.Log), journal: j}, nil
}

// Close stops the journal. Requests that arrive later may be answered from
// memory, but manifests are not accepted any more.
func (r *Registry) Close() error {
	if r.journal == nil {
		return nil
	}
	return r.journal.Close()
}

func wrap(opts Options, h http.Handler) http.Handler {
	if opts.Wrap == nil {
		return h
	}
	return opts.Wrap(h)
}

func makeDir(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make the registry's folder: %w", err)
	}
	return nil
}
