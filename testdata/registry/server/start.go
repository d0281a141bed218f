package server

import (
	"net/http/httptest"
	"strings"
	"testing"
)

// A Started is a registry that listens on loopback until its test ends.
type Started struct {
	*Registry
	Host string // HOST:PORT, as it stands in a reference
}

// Start runs a registry inside the test's own process: plain HTTP on a free
// port of 127.0.0.1. With a zero Options everything is kept in memory.
func Start(t testing.TB, opts Options) *Started {
	t.Helper()
	r, err := New(opts)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(r)
	t.Cleanup(func() {
		srv.Close()
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return &Started{r, strings.TrimPrefix(srv.URL, "http://")}
}
