package server

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
)

// A Request is what came and what was answered. Status is 0 while the answer
// is under way.
type Request struct {
	Method, Path string
	Status       int
	Bytes        int64 // of the answer's body
}

// String is the request's line in the access log.
func (r Request) String() string {
	return fmt.Sprintf("%s %s %d %d", r.Method, r.Path, r.Status, r.Bytes)
}

// An accessLog counts requests when they come, so that a client that has its
// answer also finds it counted, and logs them when they are over. A request
// whose handler panics, which is how a handler drops a connection, is logged
// too.
type accessLog struct {
	next http.Handler
	out  io.Writer

	mu   sync.Mutex
	seen []*Request
}

func newAccessLog(next http.Handler, out io.Writer) *accessLog {
	return &accessLog{next: next, out: out}
}

func (a *accessLog) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	entry := a.begin(req)
	counted := &countedAnswer{ResponseWriter: w}
	defer a.end(entry, counted)
	a.next.ServeHTTP(counted, req)
}

func (a *accessLog) begin(req *http.Request) *Request {
	a.mu.Lock()
	defer a.mu.Unlock()
	entry := &Request{Method: req.Method, Path: req.URL.Path}
	a.seen = append(a.seen, entry)
	return entry
}

func (a *accessLog) end(entry *Request, answer *countedAnswer) {
	a.mu.Lock()
	defer a.mu.Unlock()
	entry.Status, entry.Bytes = answer.Status(), answer.bytes
	if a.out != nil {
		fmt.Fprintln(a.out, *entry)
	}
}

// Requests returns what came so far, oldest first.
func (a *accessLog) Requests() []Request {
	a.mu.Lock()
	defer a.mu.Unlock()
	var all []Request
	for _, r := range a.seen {
		all = append(all, *r)
	}
	return all
}

// Count returns how many requests with this method came whose path contains
// part. An empty method or part stands for any.
func (a *accessLog) Count(method, part string) int {
	n := 0
	for _, r := range a.Requests() {
		if (method == "" || r.Method == method) && strings.Contains(r.Path, part) {
			n++
		}
	}
	return n
}

// Forget empties the list of requests; the log keeps its lines.
func (a *accessLog) Forget() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.seen = nil
}

// A countedAnswer notes what passes through a ResponseWriter. Unwrap lets
// handlers reach the real one (to flush, or to take the connection over).
type countedAnswer struct {
	http.ResponseWriter
	status int
	bytes  int64
}

func (c *countedAnswer) WriteHeader(status int) {
	c.status = status
	c.ResponseWriter.WriteHeader(status)
}

func (c *countedAnswer) Write(p []byte) (int, error) {
	n, err := c.ResponseWriter.Write(p)
	c.bytes += int64(n)
	return n, err
}

// ReadFrom lets large blobs go from file to socket without a copy here.
func (c *countedAnswer) ReadFrom(r io.Reader) (int64, error) {
	n, err := io.Copy(c.ResponseWriter, r)
	c.bytes += n
	return n, err
}

func (c *countedAnswer) Unwrap() http.ResponseWriter { return c.ResponseWriter }

func (c *countedAnswer) Status() int {
	if c.status == 0 {
		return http.StatusOK
	}
	return c.status
}
