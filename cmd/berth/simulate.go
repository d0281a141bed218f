package main

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/simulate"
)

// simulateCmd tells an admin what a site's registry, mirror and file system
// would have to do for many nodes.
type simulateCmd struct {
	Nodes    []int    `default:"10,100,1000,10000" help:"So many nodes start the image at once (${default})."`
	Size     byteRate `default:"4GB" help:"What the image's layers take together as they are transferred (${default})."`
	Squashfs byteRate `placeholder:"SIZE" help:"What the image takes in a store; like --size, where it is not given."`
	Layers   int      `default:"8" help:"Of the image (${default})."`

	Registry          byteRate      `default:"1250MB" help:"What the registry, or the site's line to it, delivers per second (${default})."`
	RegistryRoundTrip time.Duration `default:"20ms" help:"From a node to the registry and back (${default})."`
	RegistryPerClient byteRate      `placeholder:"SIZE" help:"The most that the registry gives a connection per second."`
	RegistryTokens    bool          `default:"true" negatable:"" help:"The registry wants a token of everybody, as public ones do."`
	RegistryRequests  float64       `placeholder:"N" help:"The registry answers so many requests per second, and others with 429."`
	RegistryBurst     float64       `placeholder:"N" help:"So many beyond that at once."`
	RetryAfter        time.Duration `placeholder:"DURATION" help:"What it says then of when to come again."`

	Mirror       byteRate `default:"1250MB" help:"What a mirror beside the nodes delivers per second (${default})."`
	MirrorRelays bool     `help:"The mirror asks the registry once for each node until it has a layer itself, as Docker's registry does."`
	FileSystem   byteRate `default:"10GB" help:"What the cluster's file system reads and writes per second, to all (${default})."`

	Cores   float64       `default:"16" help:"Of a node (${default})."`
	Network byteRate      `default:"1250MB" help:"Of a node, per second (${default})."`
	Disk    byteRate      `default:"500MB" help:"What a node's store writes per second (${default})."`
	Spread  time.Duration `default:"1s" help:"The time over which the scheduler starts the nodes (${default})."`

	JSON bool `name:"json" help:"Print everything as JSON."`
}

// Run prints a line for each number of nodes and each layout.
func (c *simulateCmd) Run(s *session) error {
	var all []simulate.Result
	for _, nodes := range c.Nodes {
		for _, layout := range simulate.Layouts() {
			const seed = 1 // the same answer for everybody
			r, err := simulate.Run(c.site(), c.image(), layout, nodes, seed)
			if err != nil {
				return &fault.Error{Op: "simulate", Blame: fault.User, Remedy: "see: berth simulate --help", Err: err}
			}
			all = append(all, r)
		}
	}
	if c.JSON {
		return s.printJSON(all)
	}
	return printSimulated(s.stdout, all)
}

func (c *simulateCmd) image() simulate.Image {
	im := simulate.Image{Compressed: int64(c.Size), Squashed: int64(c.Squashfs), Layers: c.Layers}
	if im.Squashed == 0 {
		im.Squashed = im.Compressed
	}
	return im
}

func (c *simulateCmd) site() simulate.Site {
	site := simulate.DefaultSite()
	site.Registry = simulate.Server{
		Bandwidth: float64(c.Registry), Connection: float64(c.RegistryPerClient), RoundTrip: c.RegistryRoundTrip,
		Rate: c.RegistryRequests, Burst: c.RegistryBurst, RetryAfter: c.RetryAfter, Tokens: c.RegistryTokens,
	}
	site.Mirror.Bandwidth, site.Mirror.Relays = float64(c.Mirror), c.MirrorRelays
	site.FileSystem = float64(c.FileSystem)
	site.Node = simulate.Node{Cores: c.Cores, Network: float64(c.Network), Disk: float64(c.Disk)}
	site.Spread = c.Spread
	return site
}

func printSimulated(out io.Writer, all []simulate.Result) error {
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "NODES\tFROM\tFIRST\tHALF\tLAST\tFAILED\tREQUESTS\tREGISTRY\tMIRROR\tFILE SYSTEM\tCPU TIME\t")
	for _, r := range all {
		fmt.Fprintf(t, "%d\t%s\t%s\t%s\t%s\t%d\t%d\t%s\t%s\t%s\t%s\t\n", r.Nodes, r.Layout, seconds(r.First), seconds(r.Median), seconds(r.Last), r.Failed,
			r.Registry.Requests, gigabytes(r.Registry.Bytes), gigabytes(r.Mirror.Bytes), gigabytes(r.Read+r.Written), seconds(r.CPU))
	}
	return t.Flush()
}

// seconds is a duration as a person would say it.
func seconds(s float64) string {
	d := time.Duration(s * float64(time.Second))
	if d < time.Minute {
		return d.Round(100 * time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}

func gigabytes(n int64) string {
	if n == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f GB", float64(n)/1e9)
}
