package server

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

// A journal keeps manifests across restarts: the registry holds them in
// memory only. It writes every successful change to a file, one JSON object
// a line, and replays the file into a new registry. The order is kept,
// because an index is only accepted after the manifests that it names.
type journal struct {
	next http.Handler

	mu   sync.Mutex // held over a change and its line
	file *os.File
}

type change struct {
	Method string `json:"method"`
	Path   string `json:"path"`
	Type   string `json:"type,omitempty"`
	Body   []byte `json:"body,omitempty"`
}

func openJournal(path string, next http.Handler) (*journal, error) {
	if err := makeDir(filepath.Dir(path)); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open the list of manifests: %w", err)
	}
	j := &journal{next: next, file: f}
	if err := j.replay(); err != nil {
		f.Close()
		return nil, fmt.Errorf("read %s (remove it and push again): %w", path, err)
	}
	return j, nil
}

// replay brings the registry to where the journal ends. An incomplete last
// line is what a kill leaves: it is cut off, its change was never answered.
func (j *journal) replay() error {
	all, err := io.ReadAll(j.file)
	if err != nil {
		return err
	}
	whole := all[:bytes.LastIndexByte(all, '\n')+1]
	for dec := json.NewDecoder(bytes.NewReader(whole)); ; {
		var c change
		if err := dec.Decode(&c); errors.Is(err, io.EOF) {
			return j.file.Truncate(int64(len(whole)))
		} else if err != nil {
			return err
		}
		if _, err := j.apply(c); err != nil {
			return err
		}
	}
}

// apply makes one change in the registry and returns its answer.
func (j *journal) apply(c change) (*httptest.ResponseRecorder, error) {
	req, err := http.NewRequest(c.Method, c.Path, bytes.NewReader(c.Body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", c.Type)
	rec := httptest.NewRecorder()
	j.next.ServeHTTP(rec, req)
	return rec, nil
}

func (j *journal) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	changes := req.Method == http.MethodPut || req.Method == http.MethodDelete
	if !changes || !strings.Contains(req.URL.Path, "/manifests/") {
		j.next.ServeHTTP(w, req)
		return
	}
	body, err := io.ReadAll(req.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	j.change(w, change{req.Method, req.URL.Path, req.Header.Get("Content-Type"), body})
}

func (j *journal) change(w http.ResponseWriter, c change) {
	j.mu.Lock()
	defer j.mu.Unlock()
	answer, err := j.apply(c)
	if err == nil && answer.Code < 300 {
		err = json.NewEncoder(j.file).Encode(c)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	for name, values := range answer.Header() {
		w.Header()[name] = values
	}
	w.WriteHeader(answer.Code)
	_, _ = w.Write(answer.Body.Bytes()) // the client is gone: nothing to tell it
}

func (j *journal) Close() error { return j.file.Close() }
