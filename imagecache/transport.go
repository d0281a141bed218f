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
	maxRedirects         = 10
	userAgent            = "berth"
)

var (
	errStalled   = errors.New("no data arrived for too long")
	errTooSlow   = errors.New("data arrived too slowly")
	errRedirects = errors.New("it redirects in circles")
	errInward    = errors.New("it redirects to this machine or its network's own services")
)

// guard is the RoundTripper below everything that talks to one host. It
// refuses plain HTTP unless the host may speak it, bounds the wait for headers,
// and ends bodies that stall. go-containerregistry's own has none of that.
type guard struct {
	next      http.RoundTripper
	plainHTTP bool // any host: where a registry is insecure, so are its redirects
	loopback  bool // the registry is on this machine
	stall     time.Duration
	minRate   int64
}

func newGuard(name string, host Host, net Network) (*guard, error) {
	config, err := tlsConfig(host)
	if err != nil {
		return nil, err
	}
	proxy, err := net.proxyFor(host)
	if err != nil {
		return nil, err
	}
	g := &guard{
		next: newTransport(config, proxy, net.HeaderTimeout), plainHTTP: host.Insecure,
		loopback: isLoopback(hostname(name)), stall: net.StallTimeout, minRate: net.MinRate,
	}
	if g.stall == 0 {
		g.stall = defaultStallTimeout
	}
	return g, nil
}

func newTransport(config *tls.Config, proxy proxyFunc, header time.Duration) *http.Transport {
	if header == 0 {
		header = defaultHeaderTimeout
	}
	return &http.Transport{
		Proxy:                  proxy,
		OnProxyConnectResponse: checkProxy,
		DialContext:            (&net.Dialer{Timeout: min(dialTimeout, header)}).DialContext,
		TLSClientConfig:        config,
		TLSHandshakeTimeout:    min(dialTimeout, header),
		ResponseHeaderTimeout:  header,
		MaxResponseHeaderBytes: 256 << 10,
		ForceAttemptHTTP2:      true,
		DisableCompression:     true, // layers are compressed already, and digests are of what is sent
		MaxIdleConnsPerHost:    8,
		IdleConnTimeout:        30 * time.Second,
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

// client returns what asks with t, which has the guard at its bottom. It
// follows redirects, but from HTTPS to HTTPS only.
func (g *guard) client(t http.RoundTripper) *http.Client {
	return &http.Client{Transport: t, CheckRedirect: func(req *http.Request, via []*http.Request) error {
		switch err := g.check(req.URL.Scheme, req.URL.Hostname()); {
		case len(via) >= maxRedirects:
			return errRedirects
		case errors.Is(err, errInward):
			return fmt.Errorf("%w at %s", err, req.URL.Host)
		case req.URL.Scheme == "http" && via[0].URL.Scheme == "https" && !g.plainHTTP:
			return fmt.Errorf("%w at %s, where it redirects to", errPlainHTTP, req.URL.Host)
		}
		return nil
	}}
}

// RoundTrip implements http.RoundTripper.
func (g *guard) RoundTrip(req *http.Request) (*http.Response, error) {
	if err := g.check(req.URL.Scheme, req.URL.Hostname()); err != nil {
		return nil, fmt.Errorf("%w at %s", err, req.URL.Host)
	}
	ctx, cancel := context.WithCancelCause(req.Context())
	req = req.Clone(ctx)
	req.Header.Set("User-Agent", userAgent)
	resp, err := g.next.RoundTrip(req)
	if err != nil {
		cancel(nil)
		return nil, err
	}
	resp.Body = newStallReader(ctx, resp.Body, g.stall, g.minRate, cancel)
	return resp, nil
}

// check refuses what a registry must not lead us to, by a redirect or by where
// it says tokens are given: clear text, and this machine.
func (g *guard) check(scheme, host string) error {
	inward := isLoopback(host) || isLinkLocal(host)
	switch {
	case inward && !g.loopback:
		return errInward
	case scheme == "http" && !g.plainHTTP && !inward:
		return errPlainHTTP
	}
	return nil
}

func isLoopback(host string) bool {
	ip := net.ParseIP(strings.Trim(host, "[]"))
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func isLinkLocal(host string) bool {
	ip := net.ParseIP(strings.Trim(host, "[]"))
	return ip != nil && (ip.IsLinkLocalUnicast() || ip.IsUnspecified())
}

// stallReader cancels a request whose body stops arriving, or crawls.
type stallReader struct {
	body    io.ReadCloser
	ctx     context.Context //nolint:containedctx // lives as long as the request it belongs to
	limit   time.Duration
	minRate int64
	timer   *time.Timer
	cancel  context.CancelCauseFunc
	once    sync.Once

	waited time.Duration // for got bytes, since the pace was looked at last
	got    int64
}

func newStallReader(ctx context.Context, body io.ReadCloser, limit time.Duration, minRate int64, cancel context.CancelCauseFunc) *stallReader {
	timer := time.AfterFunc(limit, func() { cancel(errStalled) })
	return &stallReader{body: body, ctx: ctx, limit: limit, minRate: minRate, timer: timer, cancel: cancel}
}

// Read implements io.Reader. The time between two calls does not count: the
// converter may be slower than the network.
func (s *stallReader) Read(p []byte) (int, error) {
	began := time.Now()
	s.timer.Reset(s.limit)
	n, err := s.body.Read(p)
	s.timer.Stop()
	switch {
	case err == nil && s.crawls(n, time.Since(began)):
		s.cancel(errTooSlow)
		err = fmt.Errorf("%w (less than %d bytes/s)", errTooSlow, s.minRate)
	case err != nil && err != io.EOF && errors.Is(context.Cause(s.ctx), errStalled):
		err = fmt.Errorf("%w (%v)", errStalled, s.limit)
	}
	return n, err
}

// crawls adds what a Read brought, and looks at the pace once per limit.
func (s *stallReader) crawls(n int, took time.Duration) bool {
	s.got, s.waited = s.got+int64(n), s.waited+took
	if s.waited < s.limit {
		return false
	}
	slow := float64(s.got) < float64(s.minRate)*s.waited.Seconds()
	s.got, s.waited = 0, 0
	return slow
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
