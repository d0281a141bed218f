package imagecache

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"

	"golang.org/x/net/http/httpproxy"
)

// proxyFunc says which proxy a request takes, as http.Transport wants it.
type proxyFunc func(*http.Request) (*url.URL, error)

// proxyFor returns how h is reached. A proxy's address may hold a password,
// so no error shows it.
func (n Network) proxyFor(h Host) (proxyFunc, error) {
	if h.Proxy != "" {
		return fixedProxy(h.Proxy)
	}
	if n.Proxy == "" {
		return http.ProxyFromEnvironment, nil
	}
	proxy, err := fixedProxy(n.Proxy)
	if err != nil || proxy == nil {
		return proxy, err
	}
	config := httpproxy.Config{HTTPProxy: n.Proxy, HTTPSProxy: n.Proxy, NoProxy: strings.Join(n.NoProxy, ",")}
	choose := config.ProxyFunc()
	return func(req *http.Request) (*url.URL, error) { return choose(req.URL) }, nil
}

// fixedProxy is nil for Direct.
func fixedProxy(address string) (proxyFunc, error) {
	if address == Direct {
		return nil, nil
	}
	u, err := url.Parse(address)
	if err != nil || u.Hostname() == "" {
		return nil, errors.New("the address of the proxy is none")
	}
	return http.ProxyURL(u), nil
}

// A proxyError is a proxy that refused to connect to a registry.
type proxyError struct {
	proxy  string // host:port
	status int
}

// Error implements error.
func (e *proxyError) Error() string {
	return fmt.Sprintf("the proxy %s answered %d %s", e.proxy, e.status, http.StatusText(e.status))
}

// checkProxy makes a proxy's refusal of CONNECT an error that names it.
func checkProxy(_ context.Context, proxy *url.URL, _ *http.Request, resp *http.Response) error {
	if resp.StatusCode == http.StatusOK {
		return nil
	}
	return &proxyError{proxy.Host, resp.StatusCode}
}

// isProxyUnreachable reports whether the connection to a proxy, not to a
// registry, is what failed.
func isProxyUnreachable(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && (op.Op == "proxyconnect" || strings.HasPrefix(op.Op, "socks"))
}
