package doctor

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/imagecache"
)

// registryLimit bounds the wait for one registry.
const registryLimit = 3 * time.Second

// checkRegistries asks every registry of the settings, and every mirror,
// whether it is one. All at once: each may take its time.
func checkRegistries(ctx context.Context, n *Node) []Finding {
	hosts := hostsOf(n)
	if len(hosts) == 0 {
		return good("none in the settings: references name theirs")
	}
	found := make([]Finding, len(hosts))
	done := make(chan struct{})
	for i, host := range hosts {
		go func() {
			found[i] = askRegistry(ctx, n, host)
			done <- struct{}{}
		}()
	}
	for range hosts {
		<-done
	}
	return found
}

func hostsOf(n *Node) []string {
	set := map[string]bool{}
	for host, h := range n.Network.Hosts {
		set[host] = true
		for _, mirror := range h.Mirrors {
			name, _, _ := strings.Cut(mirror, "/")
			set[name] = true
		}
	}
	return slices.Sorted(maps.Keys(set))
}

func askRegistry(ctx context.Context, n *Node, host string) Finding {
	ctx, cancel := context.WithTimeout(ctx, registryLimit)
	defer cancel()
	net := n.Network
	net.HeaderTimeout = registryLimit
	if err := imagecache.Reach(ctx, host, net); err != nil {
		remedy := fault.Remedy(err)
		if remedy == "" {
			remedy = "see that it runs and that this machine may speak to it: curl -v https://" + host + "/v2/"
		}
		return Finding{Status: Fail, Detail: fmt.Sprintf("%s does not answer: %s", host, oneLine(err)), Remedy: remedy}
	}
	return Finding{Status: OK, Detail: host + " answers"}
}
