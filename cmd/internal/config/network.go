package config

import (
	"errors"
	"fmt"
	"time"
)

func defaultNetwork() Network {
	return Network{
		Parallel: 3, HeaderTimeout: 30 * time.Second, StallTimeout: time.Minute, MinRate: 1e3, Retries: 4,
	}
}

func defaultLimits() Limits {
	return Limits{Entries: 10_000_000, Bytes: 1 << 40, Ratio: 200, Layers: 500, Manifest: 4 << 20}
}

// networkSettings are those of all registries, and of what may come from them.
func networkSettings() []Setting {
	return []Setting{
		{
			Key: "network.proxy", Open: true, check: proxyURL, shown: hideLogin, Example: `"http://proxy.example.org:3128"`,
			Doc: "The proxy through which registries are reached: http://, https:// or socks5://, also with USER:PASSWORD@ (then keep the file from others' eyes: root and the account read it). \"direct\" uses none. Unset, commands that users run by hand follow HTTPS_PROXY and the like; nodes have no environment and use none.",
			at:  func(c *Config, _ string) any { return &c.Network.Proxy },
		},
		{
			Key: "network.no_proxy", Open: true, Example: `[".example.org", "10.0.0.0/8"]`, check: noProxyList,
			Doc: "Hosts to which network.proxy does not apply: names, .suffixes, addresses, networks, each with an optional :PORT.",
			at:  func(c *Config, _ string) any { return &c.Network.NoProxy },
		},
		{
			Key: "network.parallel", Open: true, check: between(1, 32),
			Doc: "How many layers of an image are transferred at once.",
			at:  func(c *Config, _ string) any { return &c.Network.Parallel },
		},
		{
			Key: "network.header_timeout", Open: true, check: positive,
			Doc: "How long a registry may take to begin its answer.",
			at:  func(c *Config, _ string) any { return &c.Network.HeaderTimeout },
		},
		{
			Key: "network.stall_timeout", Open: true, check: positive,
			Doc: "How long a transfer may stand still before it is broken off and taken up again where it was.",
			at:  func(c *Config, _ string) any { return &c.Network.StallTimeout },
		},
		{
			Key: "network.min_rate", Open: true,
			Doc: "A layer that arrives more slowly than this, in bytes per second over network.stall_timeout, counts as standing still. \"0B\" takes any pace.",
			at:  func(c *Config, _ string) any { return &c.Network.MinRate },
		},
		{
			Key: "network.retries", Open: true, check: between(0, 20),
			Doc: "How often a request or a transfer that broke is tried again, after 1 s, 2 s, 4 s … or what the registry asks for, up to 2 minutes.",
			at:  func(c *Config, _ string) any { return &c.Network.Retries },
		},
		{
			Key: "network.deadline", Open: true, check: notNegative,
			Doc: "When a pull by hand is given up; 0s never. For jobs it is node.prepare_deadline.",
			at:  func(c *Config, _ string) any { return &c.Network.Deadline },
		},
		{
			Key: "limits.entries", Open: true, check: between(1, 1<<30),
			Doc: "How many files, folders and marks all layers of an image together may have. Each takes some 300 bytes of memory during conversion; one with a long name or link target counts more than once.",
			at:  func(c *Config, _ string) any { return &c.Limits.Entries },
		},
		{
			Key: "limits.bytes", Open: true, check: atLeastOne,
			Doc: "How much the layers of an image may unpack to, holes included.",
			at:  func(c *Config, _ string) any { return &c.Limits.Bytes },
		},
		{
			Key: "limits.ratio", Open: true, check: between(2, 1<<30),
			Doc: "How many times larger than the compressed layer its content may be, once that exceeds 16 GiB.",
			at:  func(c *Config, _ string) any { return &c.Limits.Ratio },
		},
		{
			Key: "limits.layers", Open: true, check: between(1, 1<<20),
			Doc: "How many layers an image may have.",
			at:  func(c *Config, _ string) any { return &c.Limits.Layers },
		},
		{
			Key: "limits.manifest", Open: true, check: atLeastOne,
			Doc: "How large a manifest or an index may be. A config may be twice that.",
			at:  func(c *Config, _ string) any { return &c.Limits.Manifest },
		},
	}
}

func between(low, high int) func(any) error {
	return func(value any) error {
		if n := value.(int); n < low || n > high {
			return fmt.Errorf("%d is not between %d and %d", n, low, high)
		}
		return nil
	}
}

func atLeastOne(value any) error {
	if value.(Size) < 1 {
		return errors.New("it is zero")
	}
	return nil
}

func registryAPI(value any) error {
	switch api := value.(string); api {
	case "", "none", "quay", "dockerhub", "harbor":
		return nil
	default:
		return fmt.Errorf("%q is none of quay, dockerhub, harbor and none", api)
	}
}
