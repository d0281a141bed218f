package launcher

import (
	"time"

	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/launcher/devices"
)

// A Request is what the process inside the user namespace needs to build one
// container. It travels as one JSON message from the helper (root on a managed
// node, the user elsewhere) to `berth-create inside`, which runs as the user:
// what the user asked for is passed on as it came and interpreted only there.
type Request struct {
	User  User   `json:"user"`
	Image Root   `json:"image"`
	Work  string `json:"work"` // an existing empty folder that a tmpfs may cover
	// Writable asks for a root file system that can be changed, in memory.
	Writable bool `json:"writable,omitempty"`
	// RemapRoot says that tasks will appear as root.
	RemapRoot bool `json:"remapRoot,omitempty"`
	// Scratch says where changes are until the container ends.
	Scratch Scratch `json:"scratch"`
	// Changes is a folder of the user's (see package changes) that keeps what
	// was changed in the root file system. Without one, changes stay in memory.
	Changes string `json:"changes,omitempty"`
	// Kept is for a container whose folder of changes is found by its name.
	Kept *Kept `json:"kept,omitempty"`
	// Save asks for the folder of changes (Container.Changes), apart from the
	// mount points, so that it can be saved.
	Save bool `json:"save,omitempty"`
	// Site is what the admin set, Mounts what the user asks for (Slurm's
	// option values, SRC:DST[:FLAGS][,...]): raw text.
	Site      Site     `json:"site"`
	Mounts    []string `json:"mounts,omitempty"`
	MountHome bool     `json:"mountHome,omitempty"`
	// MountDir shows Job.Dir, unless the image has something there.
	MountDir bool `json:"mountDir,omitempty"`
	// Workdir is where tasks start; "" means the image's WorkingDir, else "/".
	Workdir string `json:"workdir,omitempty"`
	Job     Job    `json:"job"`
	// Unshare are the kinds of namespaces that the container has of its own
	// (ParseUnshare).
	Unshare []string `json:"unshare,omitempty"`
	// Entrypoint is nil where the image's entrypoint is not run.
	Entrypoint *Entrypoint `json:"entrypoint,omitempty"`
	// Label is what the container is called while it runs.
	Label Label `json:"label"`
	// Devices say which devices the container gets, out of Creation.Catalogue.
	Devices devices.Wish `json:"devices"`
	// Variables are those of a task that the launcher knows of, as NAME=VALUE;
	// CheckMPI has them compared with the image's MPI.
	Variables []string `json:"variables,omitempty"`
	CheckMPI  bool     `json:"checkMPI,omitempty"`
	HostMPI   HostMPI  `json:"hostMPI"`
	// Command is the program that will run, as it was given; "" where that is
	// not known. HookTimeout bounds hooks that do not say how long they take.
	Command     string        `json:"command,omitempty"`
	HookTimeout time.Duration `json:"hookTimeout,omitempty"`
}

// A HostMPI says which of the host's libraries take the place of the image's,
// if the user wants that.
type HostMPI struct {
	Use       bool     `json:"use,omitempty"`
	Libraries []string `json:"libraries,omitempty"` // files, or patterns of them
	Folders   []string `json:"folders,omitempty"`   // shown at the same path
	Env       []string `json:"env,omitempty"`
}

// A Scratch says where what is changed in a writable root file system is, for
// as long as the container lives.
type Scratch struct {
	// Memory bounds it in memory, in bytes; 0 is no limit.
	Memory int64 `json:"memory,omitempty"`
	// Folder is on a disk of the node, as the site writes it (%t is the job's
	// folder for temporary files): where changes go with OnDisk, and
	// where the kernel can't keep them in memory. "" for nowhere.
	Folder string `json:"folder,omitempty"`
	OnDisk bool   `json:"onDisk,omitempty"`
	// NoAttributes makes memory behave as that of kernels before 6.6, which
	// keeps no extended attributes for users; for tests.
	NoAttributes bool `json:"noAttributes,omitempty"`
}

// A Site is what the admin decides about containers, whatever the job says.
type Site struct {
	// Mounts are always there: SRC:DST[:FLAGS] with %u and the like in paths,
	// and the flags required and optional (the default).
	Mounts []string   `json:"mounts,omitempty"`
	Rules  MountRules `json:"rules"`
	Env    EnvRules   `json:"env"`
	// SubIDMounts lets tasks write to the node's folders where they appear as
	// root and have further ids (User.SubIDs).
	SubIDMounts bool `json:"subIDMounts,omitempty"`
	// Volumes makes folders that the image declares as volumes writable, in
	// memory, in a read-only root file system.
	Volumes bool `json:"volumes,omitempty"`
	// MountTimeout is how long a source may take to answer; zero is no bound.
	MountTimeout time.Duration `json:"mountTimeout,omitempty"`
}

// MountRules say which paths of the node users may ask for. They are applied
// to where the opened source really is. A path stands for all that is below.
type MountRules struct {
	Forbid   bool     `json:"forbid,omitempty"` // all of them
	Allow    []string `json:"allow,omitempty"`  // nothing else, if there is one
	Deny     []string `json:"deny,omitempty"`
	ReadOnly []string `json:"readOnly,omitempty"` // whatever the user asks for
}

// A Job holds what the container must know of the job. All paths but Dir must
// be visible in it at the same place, for Slurm and MPI. Empty ones are skipped.
type Job struct {
	ID         string   `json:"id,omitempty"`         // as its scheduler names it
	Dir        string   `json:"dir,omitempty"`        // the task's working directory on the host; relative sources start there
	TmpDir     string   `json:"tmpdir,omitempty"`     // $TMPDIR
	Spool      string   `json:"spool,omitempty"`      // folder of the batch script
	PMIx       string   `json:"pmix,omitempty"`       // $PMIX_SERVER_TMPDIR
	PrologFile []string `json:"prologFile,omitempty"` // read-only: Slurm runs them inside
	Visible    []string `json:"visible,omitempty"`    // read-only: what PBS has for its jobs, what srun --bcast has copied
}

// How an image's tree becomes the lower layer of the container.
const (
	RootMounted = "mounted" // Path is a mounted image
	RootFolder  = "folder"  // Path is an unpacked image
	RootFUSE    = "fuse"    // Creation.Squashfs is served by FUSE
	RootFile    = "file"    // Path is a squashfs or SIF file of the user's, served by FUSE, or a folder, bound
)

// A Root says where the image's tree comes from.
type Root struct {
	Kind string `json:"kind"`
	Path string `json:"path,omitempty"`
}

// A Reply is one message from `berth-create inside`. With FUSE set it carries
// the descriptor of /dev/fuse to be served and, for RootFile, the file that
// the user opened, with the offset of the squashfs in it; with Ready the mount namespace,
// the result for the tasks (a memory file in package wire's format), and the
// other namespaces of Request.Unshare but pid, in that order;
// otherwise it is a failure. Notes are for the user of a container that works.
// With Scratch set, a name, it carries what tells the end of the container and
// the folder that has the container's folder of that name, see `berth-create
// janitor`. With Held set it carries what tells the end of the container, and
// the lock that is kept until then. InUse means to look again, Found answers
// Kept.Look. With Changes, an answer to Request.Save that is Ready or about a
// container that runs, the folder of changes is the last descriptor.
type Reply struct {
	Changes bool           `json:"changes,omitempty"`
	Found   *Found         `json:"found,omitempty"`
	InUse   bool           `json:"inUse,omitempty"`
	Held    bool           `json:"held,omitempty"`
	FUSE    bool           `json:"fuse,omitempty"`
	Scratch string         `json:"scratch,omitempty"`
	Offset  int64          `json:"offset,omitempty"`
	Ready   bool           `json:"ready,omitempty"`
	Notes   []string       `json:"notes,omitempty"`
	Sources []Source       `json:"sources,omitempty"`
	Made    Made           `json:"made"`
	Failure *fault.Message `json:"failure,omitempty"`
}

// Made is what the builder says of a container that is ready, for its user's
// record. It runs as the user and may say anything.
type Made struct {
	Mounts  []string `json:"mounts,omitempty"`  // SOURCE:TARGET[:ro]; tmpfs and berth for what is made for the container
	Devices []string `json:"devices,omitempty"` // VENDOR/CLASS=NAME, or paths
}

// maxMade bounds each list, maxMadeText each line in bytes.
const (
	maxMade     = 200
	maxMadeText = 1024
)

// Bounded is m with lists and lines of a length, fit to be printed.
func (m Made) Bounded() Made {
	bound := func(lines []string) (all []string) {
		for _, line := range lines[:min(len(lines), maxMade)] {
			if len(line) > maxMadeText {
				line = line[:maxMadeText]
			}
			all = append(all, fault.Clean(line))
		}
		return all
	}
	return Made{Mounts: bound(m.Mounts), Devices: bound(m.Devices)}
}

// A Source is a path of the host that a container shows, or would if it
// existed (Ino is 0 then), as it was before it was mounted.
type Source struct {
	Path string `json:"path"`
	Dev  uint64 `json:"dev,omitempty"`
	Ino  uint64 `json:"ino,omitempty"`
}
