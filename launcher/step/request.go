package step

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/launcher"
	"github.com/berth-hpc/berth/launcher/wire"
)

// A Request is what slurmstepd sent: who runs what. Job, Step, User and Tasks
// are Slurm's own; everything else is the user's text, which nothing here
// interprets.
type Request struct {
	Job, Step uint32
	// ID is the job's where the scheduler has no numbers for it (PBS): Job and
	// Step are 0 then.
	ID        string
	User      launcher.User
	Tasks     int    // local tasks of the step
	Nodes     int    // nodes of the step; 0 when unknown
	Image     string // the reference as typed
	Digest    string // pinned at submission; may be empty
	Mounts    []string
	Devices   []string
	HostMPI   bool     // use the host's libraries in place of the image's
	Variables []string // of the job, as NAME=VALUE, that tell of devices; task 0 has more to say
	Workdir   string
	Home      *bool // nil: the site's default
	Writable  *bool
	Remap     *bool
	Env       []string // variables that keep the job's value
	Unpinned  bool     // nodes may run what the tag means to each of them
	Slurm     *bool    // Slurm's commands work in the container
	// Entrypoint says whether the image's entrypoint is run before the tasks.
	Entrypoint *bool
	Memory     int64    // bytes that the job may use on this node; 0 when nothing says
	Unshare    []string // kinds of namespaces, launcher.ParseUnshare's
	Version    string   // Slurm's
	// Kept is the container's name, nil for none. With one, Image may be empty.
	Kept *launcher.Kept
	// Save is where the container is saved to when the tasks have ended, by a
	// process of the user's; "" for nowhere. Only whether it is set counts here.
	Save string
}

// imageIsFile tells a path on the node from a reference.
func (r *Request) imageIsFile() bool {
	return strings.HasPrefix(r.Image, "/") || strings.HasPrefix(r.Image, ".")
}

// mustBePinned says whether nothing fixes what the image of a step over several
// nodes means: a tag that moves while they ask would give them different
// programs.
func (r *Request) mustBePinned() bool {
	return r.Nodes > 1 && !r.Unpinned && r.Digest == "" && !r.imageIsFile() && !strings.Contains(r.Image, "@sha256:")
}

// errUnpinned is for such a step where no cluster's store pinned it, because.
func (r *Request) errUnpinned(because string) error {
	return &fault.Error{
		Op: "start on several nodes", Arg: fault.Clean(r.Image), Blame: fault.User,
		Err: errors.New("the image's registry could not be asked at submission, so nothing says which digest the tag means" + because),
		Remedy: "submit again when the registry answers, name the image by digest (IMAGE@sha256:…), " +
			"or let each node take what the tag means to it: --container-pin=no",
	}
}

// slurmFolder is where a container has Slurm's commands (CALL_FOLDER in
// spank/client/call.h).
const slurmFolder = "/run/berth-slurm"

// maxTasks bounds the memory that a broken request can make us use.
const maxTasks = 1 << 16

func parseRequest(m wire.Message) (*Request, error) {
	n := numbers{m: m}
	r := &Request{
		Job: n.get("job"), Step: n.get("step"), Tasks: int(n.get("tasks")),
		User:  launcher.User{UID: int(n.get("uid")), GID: int(n.get("gid"))},
		Image: m.Get("image"), Digest: m.Get("digest"),
		Mounts: m.All("mounts"), Devices: m.All("device"), HostMPI: m.Get("host_mpi") == "1", Variables: m.All("variable"), Workdir: m.Get("workdir"),
		Home: flag(m, "home", "1"), Writable: flag(m, "root", "writable"), Remap: flag(m, "remap", "1"),
		Env: m.All("env"), Version: m.Get("slurm_version"),
		Slurm: flag(m, "slurm", "1"), Entrypoint: flag(m, "entrypoint", "1"), Unpinned: m.Get("pin") == "no",
		Save: m.Get("save"),
	}
	r.User.Groups = n.list("groups")
	if m.Get("memory") != "" {
		r.Memory = int64(n.get("memory")) << 20
	}
	if m.Get("nodes") != "" {
		r.Nodes = int(n.get("nodes"))
	}
	var err error
	if m.Get("name") != "" {
		if r.Kept, err = launcher.ParseKept(m.Get("name")); err != nil {
			return nil, err
		}
	}
	r.Unshare, err = launcher.ParseUnshare(m.All("unshare"))
	switch {
	case n.err != nil:
		return nil, n.err
	case err != nil || slices.Contains(r.Unshare, launcher.UnsharePID):
		return nil, fmt.Errorf("request with namespaces %q", m.All("unshare"))
	case r.Image == "" && r.Kept == nil:
		return nil, fmt.Errorf("request without an image")
	case r.Tasks < 1 || r.Tasks > maxTasks:
		return nil, fmt.Errorf("request with %d tasks", r.Tasks)
	}
	return r, nil
}

// numbers collects the first error of several conversions.
type numbers struct {
	m   wire.Message
	err error
}

func (n *numbers) parse(key, text string) uint32 {
	v, err := strconv.ParseUint(text, 10, 32)
	if err != nil && n.err == nil {
		n.err = fmt.Errorf("request: %s: %w", key, err)
	}
	return uint32(v)
}

func (n *numbers) get(key string) uint32 { return n.parse(key, n.m.Get(key)) }

func (n *numbers) list(key string) []int {
	var out []int
	for _, s := range strings.FieldsFunc(n.m.Get(key), func(r rune) bool { return r == ',' }) {
		out = append(out, int(n.parse(key, s)))
	}
	return out
}

// flag is nil when the key is absent.
func flag(m wire.Message, key, yes string) *bool {
	v := m.Get(key)
	if v == "" {
		return nil
	}
	b := v == yes
	return &b
}

func orDefault(b *bool, otherwise bool) bool {
	if b == nil {
		return otherwise
	}
	return *b
}

// launcherRequest puts the request into the launcher's form.
func (r *Request) launcherRequest(v *view, set Settings) *launcher.Request {
	wish := set.Devices
	wish.Asked, wish.Job = r.Devices, true
	wish.TakeVariables(slices.Concat(r.Variables, v.variables))
	here, job := set.Site, v.job
	if orDefault(r.Slurm, set.Slurm) {
		here.Mounts = append(slices.Clone(here.Mounts), set.SlurmCommands+":"+slurmFolder+":ro")
	}
	job.ID = r.label().Job
	host := launcher.HostMPI{}
	if r.HostMPI {
		host = set.HostMPI
		host.Use = true
	}
	return &launcher.Request{
		User:      r.User,
		Writable:  r.writable(set),
		Save:      r.Save != "",
		RemapRoot: orDefault(r.Remap, set.Remap),
		Scratch:   set.Scratch(r.Memory),
		MountHome: orDefault(r.Home, set.MountHome),
		MountDir:  set.MountDir,
		Site:      here, Mounts: r.Mounts, Workdir: r.Workdir,
		Job: job, Devices: wish, Command: v.command, HostMPI: host, CheckMPI: set.CheckMPI,
		Variables: slices.Concat(r.Variables, v.variables), HookTimeout: set.HookTimeout,
		Unshare: r.Unshare, Label: r.label(), Kept: r.kept(set), Entrypoint: r.entrypoint(set),
	}
}

// writable says whether the root file system is. What is kept, or saved, is
// meant to be changed.
func (r *Request) writable(set Settings) bool {
	return orDefault(r.Writable, set.Writable || r.Kept != nil || r.Save != "")
}

// checkSave refuses to save several containers to one place.
func (r *Request) checkSave() error {
	if r.Save == "" || r.Nodes <= 1 {
		return nil
	}
	return &fault.Error{
		Op: "save the container", Blame: fault.User,
		Err:    fmt.Errorf("the step has %d nodes, each with a container of its own", r.Nodes),
		Remedy: "give --container-save to a step on one node: srun -N1",
	}
}

// entrypoint is nil for a container whose image's entrypoint is not run.
func (r *Request) entrypoint(set Settings) *launcher.Entrypoint {
	if !orDefault(r.Entrypoint, set.Entrypoint) {
		return nil
	}
	return &launcher.Entrypoint{Ready: set.Ready, Limit: set.EntrypointTimeout}
}

// label is what the step's container is called.
func (r *Request) label() launcher.Label {
	l := launcher.Label{Job: r.ID, Image: r.Image, Env: r.Env}
	if r.ID == "" {
		l.Job, l.Step = strconv.FormatUint(uint64(r.Job), 10), stepName(r.Step)
	}
	if r.Kept != nil {
		l.Name = r.Kept.Name
	}
	return l
}

// kept is r.Kept with what the site says; nil for a container without a name.
func (r *Request) kept(set Settings) *launcher.Kept {
	if r.Kept == nil {
		return nil
	}
	k := set.Kept
	k.Name, k.Mode, k.Reference, k.Digest = r.Kept.Name, r.Kept.Mode, r.Kept.Reference, r.Kept.Digest
	return &k
}

// stepName writes a step as Slurm's users do (slurm.h has the numbers).
func stepName(id uint32) string {
	switch id {
	case 0xfffffffa:
		return "interactive"
	case 0xfffffffb:
		return "batch"
	}
	return strconv.FormatUint(uint64(id), 10)
}

// notes are remarks on what was asked for, once per node.
func (r *Request) notes(job launcher.Job) []string {
	if job.PMIx != "" && slices.Contains(r.Unshare, launcher.UnshareNet) {
		return []string{"--container-unshare=net: MPI programs that start by PMIx will not work, because they reach Slurm over the node's network"}
	}
	return nil
}
