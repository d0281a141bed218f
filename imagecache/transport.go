package imagecache

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"
)

const (
	defaultHeaderTimeout = 30 * time.Second
	defaultStallTimeout  = 60 * time.Second
	dialTimeout          = 10 * time.Second
	userAgent            = "berth"
)

var errStalled = errors.New("no data arrived for too long")

// guard is the RoundTripper below everything that talks to one host. It
// refuses plain HTTP unless the host may speak it, bounds the wait for headers,
// and ends bodies that stall. go-containerregistry's own has none of that.
type guard struct {
	next      http.RoundTripper
	plainHTTP bool // any host: where a registry is insecure, so are its redirects
	stall     time.Duration
}

func newGuard(host Host, net Network) (*guard, error) {
	config, err := tlsConfig(host)
	if err != nil {
		return nil, err
	}
	stall := net.StallTimeout
	if stall == 0 {
		stall = defaultStallTimeout
	}
	return &guard{next: newTransport(config, net.HeaderTimeout), plainHTTP: host.Insecure, stall: stall}, nil
}

func newTransport(config *tls.Config, header time.Duration) *http.Transport {
	if header == 0 {
		header = defaultHeaderTimeout
	}
	return &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: dialTimeout}).DialContext,
		TLSClientConfig:       config,
		TLSHandshakeTimeout:   dialTimeout,
		ResponseHeaderTimeout: header,
		ForceAttemptHTTP2:     true,
		DisableCompression:    true, // layers are compressed already, and digests are of what is sent
		MaxIdleConnsPerHost:   8,
		IdleConnTimeout:       30 * time.Second,
	}
}

func tlsConfig(host Host) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: host.Insecure}
	if host.CAFile == "" {
		return config, nil
	}
	pem, err := os.ReadFile(host.CAFile)
	if err != nil {
		return nil, fmt.Errorf("read CA file: %w", err)
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("read CA file %s: no certificate in it", host.CAFile)
	}
	config.RootCAs = pool
	return config, nil
}

// RoundTrip implements http.RoundTripper.
func (g *guard) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Scheme == "http" && !g.plainHTTP && !isLoopback(req.URL.Hostname()) {
		return nil, fmt.Errorf("%w at %s", errPlainHTTP, req.URL.Host)
	}
	ctx, cancel := context.WithCancelCause(req.Context())
	req = req.Clone(ctx)
	req.Header.Set("User-Agent", userAgent)
	resp, err := g.next.RoundTrip(req)
	if err != nil {
		cancel(nil)
		return nil, err
	}
	resp.Body = newStallReader(ctx, resp.Body, g.stall, cancel)
	return resp, nil
}

func isLoopback(host string) bool {
	ip := net.ParseIP(strings.Trim(host, "[]"))
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// stallReader cancels a request whose body stops arriving.
type stallReader struct {
	body   io.ReadCloser
	ctx    context.Context //nolint:containedctx // lives as long as the request it belongs to
	limit  time.Duration
	timer  *time.Timer
	cancel context.CancelCauseFunc
	once   sync.Once
}

func newStallReader(ctx context.Context, body io.ReadCloser, limit time.Duration, cancel context.CancelCauseFunc) *stallReader {
	timer := time.AfterFunc(limit, func() { cancel(errStalled) })
	return &stallReader{body: body, ctx: ctx, limit: limit, timer: timer, cancel: cancel}
}

// Read implements io.Reader. The time between two calls does not count: the
// converter may be slower than the network.
func (s *stallReader) Read(p []byte) (int, error) {
	s.timer.Reset(s.limit)
	n, err := s.body.Read(p)
	s.timer.Stop()
	if err != nil && err != io.EOF && errors.Is(context.Cause(s.ctx), errStalled) {
		err = fmt.Errorf("%w (%v)", errStalled, s.limit)
	}
	return n, err
}

// Close implements io.Closer.
func (s *stallReader) Close() error {
	err := s.body.Close()
	s.once.Do(func() {
		s.timer.Stop()
		s.cancel(nil)
	})
	return err
}
