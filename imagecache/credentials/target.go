package credentials

import (
	"slices"
	"strings"
)

// dockerHub is how references and our files call Docker's registry, and
// hubServer what docker's files and helpers do.
const (
	dockerHub = "docker.io"
	hubServer = "https://index.docker.io/v1/"
)

// A Target is what a login is wanted for. Registry is a host with its port, if
// it was given ("docker.io", "registry.site:5000"), and Repository the image's
// name in it. User, if set, is the login's name that the reference asks for.
type Target struct {
	Registry   string
	Repository string
	User       string
}

// keys returns the keys of an auth file that mean the target, the most
// special first: HOST/NAMESPACE/NAME, HOST/NAMESPACE, HOST.
func (t Target) keys() []string {
	key := Host(t.Registry)
	keys := []string{key}
	for part := range strings.SplitSeq(t.Repository, "/") {
		if part != "" {
			key += "/" + part
			keys = append(keys, key)
		}
	}
	slices.Reverse(keys)
	return keys
}

// wants reports whether the target asks for a login of that name, or for any.
func (t Target) wants(name string) bool { return t.User == "" || t.User == name }

// Host returns the one name of a registry's host that has several: lower case,
// and docker.io for all names of Docker's registry.
func Host(host string) string {
	switch host = strings.ToLower(host); host {
	case "index.docker.io", "registry-1.docker.io", "auth.docker.io", "registry.hub.docker.com":
		return dockerHub
	}
	return host
}

// Key returns a key of an auth file in the form that Target.keys has. Docker
// writes addresses ("https://quay.io", "https://index.docker.io/v1/"), which
// stand for the whole host, podman HOST or HOST/NAMESPACE.
func Key(key string) string {
	bare, https := strings.CutPrefix(key, "https://")
	bare, http := strings.CutPrefix(bare, "http://")
	host, path, _ := strings.Cut(strings.TrimRight(bare, "/"), "/")
	if path == "" || https || http || path == "v1" || path == "v2" {
		return Host(host)
	}
	return Host(host) + "/" + path
}

// serverAddress is how credential helpers call a host.
func serverAddress(host string) string {
	if Host(host) == dockerHub {
		return hubServer
	}
	return host
}
