package imagecache

import (
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
)

// Network says how registries are reached. The zero value reaches all of
// them anonymously over HTTPS with the system's certificates.
type Network struct {
	// Hosts holds what differs from that, by registry host as in a
	// reference ("docker.io", "registry.site:5000").
	Hosts map[string]Host
	// Credentials finds the user's logins; nil means anonymous. Only
	// commands that run as the user set it, by Keychain.
	Credentials authn.Keychain
	// Hidden says that a registry which knows of no such thing is asked again
	// with the login: some say so of what is private.
	Hidden bool
	// Proxy is the URL of the proxy for all hosts but NoProxy's, Direct for
	// none. With "" the environment of the process decides; that of a node's
	// programs is fixed and names none.
	Proxy string
	// NoProxy holds names, .suffixes, addresses and networks. Loopback
	// addresses are always among them.
	NoProxy []string
	// HeaderTimeout bounds the wait for the first byte of an answer;
	// zero means 30 s.
	HeaderTimeout time.Duration
	// StallTimeout bounds the time in which not one byte of a body arrives;
	// zero means 60 s.
	StallTimeout time.Duration
	// MinRate is how many bytes per second have to arrive, over each
	// StallTimeout of waiting for them; zero takes any pace.
	MinRate int64
	// Retries is how often a request, or a transfer that broke off, is tried
	// again; 0 means 4, less none.
	Retries int
	// RetryWait is the pause before the first further try, which doubles with
	// each; zero means 1 s.
	RetryWait time.Duration
	// MaxManifest is how large a manifest or an index may be, in bytes; zero
	// means 4 MiB, which registries keep to themselves. A config may have
	// twice that.
	MaxManifest int64
}

// Direct is the Proxy that stands for none.
const Direct = "direct"

// Host is how one registry is reached.
type Host struct {
	// Insecure allows plain HTTP and certificates nobody can check. Loopback
	// addresses may always speak plain HTTP.
	Insecure bool
	// CAFile holds PEM certificates to trust beside the system's.
	CAFile string
	// Mirrors are hosts, each with an optional /prefix for the repository,
	// that are asked before the registry itself.
	Mirrors []string
	// Proxy is used for this host and where it redirects to, instead of
	// Network.Proxy.
	Proxy string
	// API is what Search and Tags may ask this registry for beyond the
	// distribution specification.
	API API
	// MirrorLogins, if set, has the site's login to this host as a mirror of
	// others, which is shown in place of a user's.
	MirrorLogins authn.Keychain
	// TakesLogins says that this host, as a mirror, may be shown the login to
	// the registry that it mirrors.
	TakesLogins bool
}
