package doctor

import (
	"context"
	"time"

	"github.com/berth-hpc/berth/imagecache/store"
)

// A ClusterStore is the store that the nodes share, as the settings have it.
type ClusterStore struct {
	Dir   string // "" for none
	Mount bool   // images are used in place
	store.ClusterOptions
}

// checkClusterStore tries, as root, what a node does there. Whatever is wrong
// costs pulls, not jobs.
func checkClusterStore(ctx context.Context, n *Node) []Finding {
	dir := n.ClusterStore.Dir
	if dir == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, partLimit/2)
	defer cancel()
	began := time.Now()
	c, err := store.OpenCluster(ctx, dir, n.ClusterStore.ClusterOptions)
	if err == nil && c.Writer() {
		err = c.Probe(ctx)
	}
	switch took := time.Since(began).Round(time.Millisecond).String(); {
	case err != nil:
		return one(Warn, oneLine(err)+": this node pulls every image for itself",
			"mount the file system; a writer's root must be root there (NFS: no_root_squash), or leave this host out of cluster.writers")
	case c.Writer():
		return good(dir + ": this node may pull for all (" + took + ")")
	case n.ClusterStore.Mount:
		return one(Warn, dir+": this node may only read, so it cannot lease images and copies them", "add it to cluster.writers, or set cluster.use to copy")
	}
	return good(dir + ": this node copies what others pull")
}
