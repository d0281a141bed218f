// Package config reads Berth's settings: what they are (settings.go), where
// they come from (load.go), and how they are shown (show.go).
//
// Sources, later ones win:
//
//	built in                    the defaults of settings.go
//	/etc/berth/berth.toml       the site
//	/etc/berth/conf.d/*.toml    the site, in the order of their names
//	~/.config/berth/berth.toml  the user, for what settings.go leaves open
//	BERTH_<SECTION>_<KEY>       the user, likewise
//
// Options of a command line come last and are the command's business. Root
// and the berth account read only /etc: pass a Source without User and Env.
//
// Both the command line and the small programs in libexec read their settings
// here, so this package knows nothing of registries or containers.
package config

import "time"

// Dir is the folder of the site's files.
const Dir = "/etc/berth"

// A Config holds every setting. See settings.go for what each one means.
type Config struct {
	Store     Store
	Cluster   Cluster
	Node      Node
	Resolve   Resolve
	Container Container
	Devices   Devices
	Hooks     Hooks
	MPI       MPI
	Login     Login
	Grants    Grants
	Records   Records
	Log       Log
	Network   Network
	Limits    Limits
	Policy    Policy
	// Registry holds what is set for single registries, by the host as it
	// stands in references ("quay.io", "10.0.0.1:5000").
	Registry map[string]*Registry

	origin map[string]Origin // by full key, for what is not a default
}

// A Store says where images are kept, and how they get there. Both paths are
// absolute.
type Store struct {
	Dir       string // the node's store; root publishes into it
	UserDir   string // a user's own store
	Converter string // the name of imagecache's converter
	Space     Space  // of the node's store
	UserSpace Space  // of a user's own store
	MaxImage  Size   // of a file that is written on a node; zero for no limit
}

// A Space says how much of its disk a store may take.
type Space struct {
	Quota    Share // of the file system; zero for no limit
	LowWater Share // of Quota
	MinFree  Share // of the file system
}

// A Node holds the settings of the root side of a managed node.
type Node struct {
	RunDir          string        // leases, pins and error records of jobs
	Account         string        // unprivileged account for network and layers
	Checker         string        // unprivileged account for checking images
	PrologWait      time.Duration // how long the prolog may wait for an image
	PrepareDeadline time.Duration // when a detached preparation is given up
	MountSocket     string        // where users' own berth run asks for images
	LiveJobs        []string      // prints the scheduler's jobs on the node; %n is its name
	PBSJobs         string        // pbs_mom's folder of jobs
	JobFacts        []string      // prints a job's partition and account; %j is its number
}

// A Resolve holds the settings of turning tags into digests.
type Resolve struct {
	Timeout time.Duration // for the registry's answer
	TTL     time.Duration // how long an answer is used again
}

// Root file systems of a container.
const (
	ReadOnly = "readonly"
	Writable = "writable"
)

// Where what is changed in a writable root file system is until the container ends.
const (
	InMemory  = "memory"
	OnScratch = "scratch"
)

// How long a job's container with a name is there.
const (
	ScopeJob    = "job"
	ScopeGlobal = "global"
)

// A Container holds the defaults of containers.
type Container struct {
	MountHome bool
	MountDir  bool // show the job's working directory
	RemapRoot bool // appear as root
	Slurm     bool // Slurm's commands work in the container
	// Entrypoint has the image's run before a step's tasks; it may take so long.
	Entrypoint        bool
	EntrypointTimeout time.Duration

	Root      string   // ReadOnly or Writable
	Changes   string   // InMemory or OnScratch: where those to a writable root go
	Memory    Share    // of the job's memory, for them
	Scratch   string   // folder for them; %t and the like are left in
	SubIDs    bool     // root in appearance gets the ids of /etc/subuid and /etc/subgid
	SubMounts bool     // and may write to the node's folders with them
	IDMap     bool     // use idmapped image mounts where the kernel can
	Mounts    []string // SRC:DST or SRC:DST:FLAGS; %u and the like are left in
	Dev       string   // HostDev or MinimalDev

	UserMounts         bool     // whether users may ask for paths of the node
	UserMountsAllow    []string // cleaned absolute paths; empty: everything
	UserMountsDeny     []string // cleaned absolute paths
	UserMountsReadOnly []string // cleaned absolute paths
	MountTimeout       time.Duration
	Volumes            bool // an image's volumes are writable

	EnvSet  []string // NAME=VALUE
	EnvKeep []string // NAME or PREFIX*
	EnvDrop []string // NAME or PREFIX*
	// NamesDir is where jobs' containers with a name are (%u and the like are
	// left in), NamesScope one of ScopeJob and ScopeGlobal.
	NamesDir    string
	NamesScope  string
	NamesExpiry time.Duration // since the last use; 0 is never
	NamesQuota  Size          // of one user on one node; 0 is none
	SaveTimeout time.Duration // for a step's container
	// IdleTimeout is how long a container stands ready for a further run.
	IdleTimeout time.Duration
}

// A Network says how registries are spoken to, whichever they are.
type Network struct {
	Proxy         string   // an address; Direct for none; "" where nobody said
	NoProxy       []string // hosts that Proxy is not for
	Parallel      int      // layers of one image at once
	HeaderTimeout time.Duration
	StallTimeout  time.Duration
	MinRate       Size          // bytes per second over StallTimeout; 0: any
	Retries       int           // of a request or transfer, after the first try
	Deadline      time.Duration // of a pull by hand; 0: none
}

// Limits bound what an image may cost.
type Limits struct {
	Entries  int  // of all layers
	Bytes    Size // unpacked
	Ratio    int  // unpacked to compressed
	Layers   int
	Manifest Size
}

// Grants hold the settings of who may use private images of the node's store.
type Grants struct {
	TTL     time.Duration // how long a registry's word holds
	StaleOK bool          // longer, while the registry does not answer
}

// A Login holds the settings of looking for logins.
type Login struct {
	HelperTimeout time.Duration // after which a credential helper is killed
}

// A Registry holds what is set for one registry.
type Registry struct {
	Insecure bool     // plain http, or https with any certificate
	CA       string   // PEM file with further authorities
	Mirrors  []string // HOST[/PREFIX], tried in order before the registry
	Proxy    string   // instead of Network.Proxy
	API      string   // which interface it has of its own; "" goes by its name
	// Of a host that is a mirror of others:
	MirrorLogin string // file with the site's login to it
	TakesLogins bool   // users' logins are shown to it
}

// An Origin says where a value was set: a file or an environment variable.
type Origin string

// Default is the origin of what nobody set.
const Default Origin = "default"

// Origin returns where the value of key, as in "store.dir" or
// `registry."quay.io".ca`, was set.
func (c *Config) Origin(key string) Origin {
	if o, ok := c.origin[key]; ok {
		return o
	}
	return Default
}

// registry returns the entry of host, made when there is none.
func (c *Config) registry(host string) *Registry {
	if c.Registry[host] == nil {
		c.Registry[host] = &Registry{}
	}
	return c.Registry[host]
}
