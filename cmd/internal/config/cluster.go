package config

import (
	"fmt"
	"path"
	"strings"
	"time"
)

// Ways to use the image of a cluster's store on a node.
const (
	Copy  = "copy"
	Mount = "mount"
)

// A Cluster holds the settings of a store that many nodes share.
type Cluster struct {
	Dir         string        // "" for none
	Writers     []string      // patterns of host names
	Use         string        // Copy or Mount
	Lease       time.Duration // how long a node's lease holds that is not renewed
	RemoveDelay time.Duration // how long a removed image's file stays
	LockTimeout time.Duration // after which a silent holder of a lock is dead
	Timeout     time.Duration // for each look at its file system
	Quota       Size          // for its images together, 0 for no limit
	LowWater    Share         // of Quota, down to what images go then
}

// Writes says whether host, a full name or its first part, is a writer's.
func (c Cluster) Writes(host string) bool {
	short, _, _ := strings.Cut(host, ".")
	for _, pattern := range c.Writers {
		for _, name := range []string{host, short} {
			if ok, err := path.Match(pattern, name); ok && err == nil {
				return true
			}
		}
	}
	return false
}

func defaultCluster() Cluster {
	return Cluster{
		Writers: []string{"*"}, Use: Copy,
		Lease: 14 * 24 * time.Hour, RemoveDelay: time.Hour, LockTimeout: time.Minute, Timeout: 10 * time.Second,
		LowWater: Share{Percent: 90},
	}
}

// clusterSettings are those of the store that the cluster's nodes share.
func clusterSettings() []Setting {
	return []Setting{
		{
			Key: "cluster.dir", check: absoluteOrNone, Example: `"/lustre/berth"`,
			Doc: "A store on a file system that all nodes share: of nodes that want an image at once one pulls it, the others take it from there. Unset: none. A root-owned folder that others cannot write, below a mount point rather than the mount point itself: where it does not exist, Berth goes on without it.",
			at:  func(c *Config, _ string) any { return &c.Cluster.Dir },
		},
		{
			Key: "cluster.writers", check: patternList, Example: `["node*", "login[12]"]`,
			Doc: "The hosts that pull images into cluster.dir, as shell patterns of host names, with or without the domain. Root must be root there on that file system (NFS: no_root_squash). All others wait for a pull that is under way, and otherwise pull into their own store.",
			at:  func(c *Config, _ string) any { return &c.Cluster.Writers },
		},
		{
			Key: "cluster.use", check: oneOf(Copy, Mount),
			Doc: "copy: a node copies an image into its own store before its first job with it. mount: it mounts the file where it is, for nodes with little disk; that needs a writer's rights for a lease, and a node without them copies.",
			at:  func(c *Config, _ string) any { return &c.Cluster.Use },
		},
		{
			Key: "cluster.lease", check: positive,
			Doc: "How long an image counts as used by a node that mounted it and has not been heard of since. Each start and end of a job with an image on the node renews it; make it longer than the longest job.",
			at:  func(c *Config, _ string) any { return &c.Cluster.Lease },
		},
		{
			Key: "cluster.remove_delay", check: notNegative,
			Doc: "How long the file of an image that was removed from cluster.dir stays, for nodes that are copying it.",
			at:  func(c *Config, _ string) any { return &c.Cluster.RemoveDelay },
		},
		{
			Key: "cluster.quota",
			Doc: "How much the images in cluster.dir may take together. Whoever pulls one over it removes those that no node copied or mounted for longest, but never one that a node has mounted or that is kept (berth keep --cluster). 0B is no limit.",
			at:  func(c *Config, _ string) any { return &c.Cluster.Quota },
		},
		{
			Key: "cluster.low_water",
			Doc: "Down to what images are removed once that quota is reached: bytes, or a share of it.",
			at:  func(c *Config, _ string) any { return &c.Cluster.LowWater },
		},
		{
			Key: "cluster.lock_timeout", check: positive,
			Doc: "After how long without a sign of life a node that pulls for the others counts as dead. It gives twelve signs in that time; the others look every 60th to 12th part of it, by their own clocks.",
			at:  func(c *Config, _ string) any { return &c.Cluster.LockTimeout },
		},
		{
			Key: "cluster.timeout", check: positive,
			Doc: "How long the shared file system may take to answer before a node goes on without it.",
			at:  func(c *Config, _ string) any { return &c.Cluster.Timeout },
		},
	}
}

func absoluteOrNone(value any) error {
	if value.(string) == "" {
		return nil
	}
	return absolute(value)
}

func patternList(value any) error {
	for _, pattern := range value.([]string) {
		if _, err := path.Match(pattern, ""); err != nil || pattern == "" {
			return fmt.Errorf("%q is not a pattern of host names", pattern)
		}
	}
	return nil
}
