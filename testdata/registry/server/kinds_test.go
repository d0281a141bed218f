package server_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/partial"

	"github.com/berth-hpc/berth/testdata/images"
	"github.com/berth-hpc/berth/testdata/registry/server"
)

// asked is what came of a request: its answers, in the order in which redirects
// led to them, and the last one's body.
type asked struct {
	status int
	header http.Header
	body   []byte
	hosts  []string
	err    error
}

func ask(t *testing.T, url, span string, limit time.Duration) asked {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if span != "" {
		req.Header.Set("Range", span)
	}
	var a asked
	client := &http.Client{CheckRedirect: func(req *http.Request, via []*http.Request) error {
		a.hosts = append(a.hosts, req.URL.Host)
		if len(via) > 3 || req.URL.Hostname() == "169.254.169.254" {
			return http.ErrUseLastResponse
		}
		return nil
	}}
	resp, err := client.Do(req)
	if err != nil {
		a.err = err
		return a
	}
	defer resp.Body.Close()
	a.status, a.header = resp.StatusCode, resp.Header
	a.body, a.err = io.ReadAll(resp.Body)
	return a
}

// TestKinds asks once for a layer below every kind of fault.
func TestKinds(t *testing.T) {
	reg := server.Start(t, server.Options{Dir: t.TempDir(), Wrap: server.Faults})
	img := large(t)
	if _, err := images.Push(t.Context(), reg.Host, "x:1", img); err != nil {
		t.Fatal(err)
	}
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	desc, err := partial.Descriptor(layers[0])
	if err != nil {
		t.Fatal(err)
	}
	path := "/x/blobs/" + desc.Digest.String()
	real := ask(t, "http://"+reg.Host+"/v2"+path, "", time.Second)
	n := len(real.body)
	timedOut := func(a asked) bool { return errors.Is(a.err, context.DeadlineExceeded) }
	cut := func(a asked) bool { return errors.Is(a.err, io.ErrUnexpectedEOF) }
	whole := func(a asked) bool { return a.err == nil && a.status == 200 && bytes.Equal(a.body, real.body) }
	for _, test := range []struct {
		how, span string
		ok        func(asked) bool
	}{
		{"none", "", whole},
		{"layer.429.after7", "", func(a asked) bool { return a.status == 429 && a.header.Get("Retry-After") == "7" }},
		{"layer.503.date60", "", func(a asked) bool {
			at, err := http.ParseTime(a.header.Get("Retry-After"))
			return err == nil && a.status == 503 && time.Until(at) > 50*time.Second
		}},
		{"config.500", "", whole},
		{"layer.silent", "", func(a asked) bool { return timedOut(a) && a.status == 0 }},
		{"layer.slow.ms50", "", whole},
		{"layer.slow.ms9000", "", timedOut},
		{"layer.cut", "", func(a asked) bool { return cut(a) && len(a.body) == n/2 }},
		{"layer.cut.at1000", "", func(a asked) bool { return cut(a) && len(a.body) == 1000 }},
		{"layer.stall.at1000", "", func(a asked) bool { return timedOut(a) && len(a.body) == 1000 }},
		{"layer.trickle.ms50", "", func(a asked) bool { return timedOut(a) && len(a.body) > 0 && len(a.body) < 30 }},
		{"layer.flip", "", func(a asked) bool { return len(a.body) == n && !bytes.Equal(a.body, real.body) }},
		{"layer.short", "", func(a asked) bool { return a.err == nil && len(a.body) == n-1 }},
		{"layer.long", "", func(a asked) bool { return a.err == nil && len(a.body) == n+1 }},
		{"layer.nolength", "", func(a asked) bool { return whole(a) && a.header.Get("Content-Length") == "" }},
		{"layer.nolength.at9", "", func(a asked) bool { return a.err == nil && len(a.body) == 9 }},
		{"layer.cut.x0", "bytes=100-", func(a asked) bool { return a.status == 206 }},
		{"layer.norange", "bytes=100-200", func(a asked) bool { return a.status == 416 }},
		{"layer.whole", "bytes=100-200", whole},
		{"layer.otherpart", "bytes=100-200", func(a asked) bool {
			return a.status == 206 && !strings.HasPrefix(a.header.Get("Content-Range"), "bytes 100-")
		}},
		{"layer.redirect.same", "", func(a asked) bool { return whole(a) && a.hosts[0] == reg.Host }},
		{"layer.redirect.other", "", func(a asked) bool { return whole(a) && strings.HasPrefix(a.hosts[0], "localhost:") }},
		{"layer.redirect.loop", "", func(a asked) bool { return a.status == 307 && len(a.hosts) > 3 }},
		{"layer.redirect.expired1", "", func(a asked) bool { return a.status == 403 && strings.Contains(string(a.body), "expired") }},
		{"layer.redirect.inward", "", func(a asked) bool { return a.hosts[0] == "169.254.169.254" }},
		{"layer.type", "", func(a asked) bool { return whole(a) && a.header.Get("Content-Type") == "text/html" }},
		{"layer.html", "", func(a asked) bool { return a.status == 200 && bytes.HasPrefix(a.body, []byte("<html>")) }},
		{"any.token", "", func(a asked) bool {
			return a.status == 401 && strings.HasPrefix(a.header.Get("WWW-Authenticate"), "Bearer ")
		}},
	} {
		a := ask(t, "http://"+reg.Host+"/v2/faults/"+test.how+path, test.span, 400*time.Millisecond)
		if !test.ok(a) {
			t.Errorf("%s: status %d, %d bytes of %d, %v, redirected to %v, %v", test.how, a.status, len(a.body), n, a.header, a.hosts, a.err)
		}
	}
}

// TestCounts: a fault with xN strikes N times, and another path is counted by
// itself; faults after it have their turn.
func TestCounts(t *testing.T) {
	reg := server.Start(t, server.Options{Dir: t.TempDir(), Wrap: server.Faults})
	img := large(t)
	if _, err := images.Push(t.Context(), reg.Host, "x:1", img); err != nil {
		t.Fatal(err)
	}
	for i, want := range []int{503, 503, 429, 200, 200} {
		a := ask(t, "http://"+reg.Host+"/v2/faults/tag.503.x2__tag.429.x1/x/manifests/1", "", time.Second)
		if a.status != want {
			t.Errorf("request %d: status %d, want %d", i+1, a.status, want)
		}
	}
}

// TestTokens: a token is good for so many requests.
func TestTokens(t *testing.T) {
	reg := server.Start(t, server.Options{Dir: t.TempDir(), Wrap: server.Faults})
	if _, err := images.Push(t.Context(), reg.Host, "x:1", large(t)); err != nil {
		t.Fatal(err)
	}
	url := "http://" + reg.Host + "/v2/faults/any.token.uses2/x/manifests/1"
	if a := ask(t, url, "", time.Second); a.status != 401 {
		t.Fatalf("without a token: %d", a.status)
	}
	if a := ask(t, "http://"+reg.Host+"/v2/", "", time.Second); a.status != 401 {
		t.Errorf("/v2/ says %d", a.status)
	}
	a := ask(t, "http://"+reg.Host+"/token/any.token.uses2", "", time.Second)
	if a.status != 200 || !strings.Contains(string(a.body), `"token":"token1"`) {
		t.Fatalf("%d %s", a.status, a.body)
	}
	for i, want := range []int{200, 200, 401} {
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
		req.Header.Set("Authorization", "Bearer token1")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("use %d: %d", i+1, resp.StatusCode)
		}
	}
}
