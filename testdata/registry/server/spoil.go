package server

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
)

// An answer is the registry's own.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// real returns the registry's own answer, asked for once.
func (f *faulty) real(req *request) *answer {
	if req.answer == nil {
		rec := httptest.NewRecorder()
		whole := req.Clone(req.Context())
		whole.Header.Del("Range")
		f.next.ServeHTTP(rec, whole)
		req.answer = &answer{rec.Code, rec.Header(), rec.Body.Bytes()}
	}
	return req.answer
}

// hits reports whether a request is for a target.
func (f *faulty) hits(req *request, target string) bool {
	isBlob := strings.Contains(req.URL.Path, "/blobs/")
	isManifest := strings.Contains(req.URL.Path, "/manifests/")
	byDigest := strings.Contains(req.URL.Path, "sha256:")
	switch target {
	case "any":
		return true
	case "tag":
		return isManifest && !byDigest
	case "manifest":
		return isManifest && byDigest
	case "blob":
		return isBlob
	case "config":
		return isBlob && bytes.HasPrefix(f.real(req).body, []byte("{"))
	case "layer":
		return isBlob && !bytes.HasPrefix(f.real(req).body, []byte("{"))
	}
	return false
}

func refuse(w http.ResponseWriter, status int, after string) {
	if after != "" {
		w.Header().Set("Retry-After", after)
	}
	w.WriteHeader(status)
	fmt.Fprintf(w, `{"errors":[{"code":"TEST","message":"refused on purpose"}]}`)
}

// spoil answers with what was asked for, but not as it is.
func (f *faulty) spoil(w http.ResponseWriter, req *request, how fault) bool {
	real := f.real(req)
	if real.status != http.StatusOK || req.Method != http.MethodGet {
		return false
	}
	body := bytes.Clone(real.body)
	switch how.kind {
	case "flip":
		body[len(body)/2] ^= 1
	case "short":
		body = body[:len(body)-1]
	case "long":
		body = append(body, 0)
	case "html":
		body = []byte("<html><body>Please log in to this network.</body></html>")
	}
	for name, values := range real.header {
		w.Header()[name] = values
	}
	if how.kind == "type" || how.kind == "html" {
		w.Header().Set("Content-Type", "text/html")
	}
	body, status := part(w, req, how, body)
	if how.kind == "nolength" {
		return hangUp(w, body[:how.number("at", len(body))])
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	if status == http.StatusRequestedRangeNotSatisfiable {
		return true
	}
	send(w, req, how, body)
	return true
}

// part cuts body to the range that is asked for.
func part(w http.ResponseWriter, req *request, how fault, body []byte) ([]byte, int) {
	var from, to int
	if n, _ := fmt.Sscanf(req.Header.Get("Range"), "bytes=%d-%d", &from, &to); n == 0 || how.kind == "whole" {
		return body, http.StatusOK
	}
	if how.kind == "norange" || from >= len(body) {
		return nil, http.StatusRequestedRangeNotSatisfiable
	}
	if how.kind == "otherpart" {
		from = (from + len(body)) / 2
	}
	w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(body)-1, len(body)))
	return body[from:], http.StatusPartialContent
}

// send writes body, or as much of it as the fault lets through.
func send(w http.ResponseWriter, req *request, how fault, body []byte) {
	switch how.kind {
	case "cut", "stall":
		_, _ = w.Write(body[:min(how.number("at", len(body)/2), len(body))])
		_ = http.NewResponseController(w).Flush()
		if how.kind == "stall" {
			<-req.Context().Done()
		}
		panic(http.ErrAbortHandler) // closes the connection
	case "trickle":
		for i := range body {
			if _, err := w.Write(body[i : i+1]); err != nil || !pause(req, how.milliseconds(1000)) {
				return
			}
			_ = http.NewResponseController(w).Flush()
		}
	default:
		_, _ = w.Write(body)
	}
}

// hangUp answers as HTTP/1.0 did: the end of the connection is that of the body.
func hangUp(w http.ResponseWriter, body []byte) bool {
	conn, out, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	defer conn.Close()
	fmt.Fprintf(out, "HTTP/1.0 200 OK\r\nContent-Type: application/octet-stream\r\n\r\n")
	_, _ = out.Write(body)
	_ = out.Flush()
	return true
}
