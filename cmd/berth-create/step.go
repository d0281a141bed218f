package main

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"

	"github.com/berth-hpc/berth/cmd/internal/config"
	"github.com/berth-hpc/berth/cmd/internal/nodelog"
	"github.com/berth-hpc/berth/cmd/internal/site"
	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/imagecache/credentials"
	"github.com/berth-hpc/berth/launcher"
	"github.com/berth-hpc/berth/launcher/devices"
	"github.com/berth-hpc/berth/launcher/step"
	"github.com/berth-hpc/berth/prolog/jobstate"
	"github.com/sirupsen/logrus"
)

// runStep is `berth-create step`: root, with the control socket as descriptor
// 3, an environment that the plugin fixed, and no terminal.
func runStep(ctx context.Context) error {
	// It may come to hold a login.
	if err := credentials.Guard(); err != nil {
		return err
	}
	control, err := launcher.NewSocket(3)
	if err != nil {
		return err
	}
	cfg, err := config.Load(config.Site())
	if err != nil { // the tasks must hear it: their step fails because of this
		return step.Run(ctx, openLog("/run/berth"), control, broken{err}, step.Settings{})
	}
	log := openLog(cfg.Node.RunDir)
	nodelog.System().Attach(log, cfg.Log.To)
	return step.Run(ctx, log, control, &node{cfg: cfg, berth: berthPath()}, settings(cfg))
}

// settings are the site's choices for containers.
func settings(cfg *config.Config) step.Settings {
	return step.Settings{
		Exe: "/proc/self/exe", RunDir: cfg.Node.RunDir,
		HostMPI: launcher.HostMPI{
			Libraries: cfg.MPI.HostLibraries, Folders: cfg.MPI.HostFolders, Env: cfg.MPI.HostEnv,
		},
		HookTimeout: cfg.Hooks.Timeout, CheckMPI: cfg.MPI.Check,
		Devices: devices.Wish{
			Always: cfg.Devices.Always, Scheduler: cfg.Devices.Scheduler,
			Minimal: cfg.Container.Dev == config.MinimalDev,
		},
		Site: site.Of(&cfg.Container), MountHome: cfg.Container.MountHome,
		MountDir: cfg.Container.MountDir, Remap: cfg.Container.RemapRoot,
		Writable: cfg.Container.Root == config.Writable, IDMap: cfg.Container.IDMap,
		Pins: cfg.Cluster.Dir != "", Kept: site.Kept(&cfg.Container),
		Slurm: cfg.Container.Slurm, SlurmCommands: beside("slurm"),
		Entrypoint: cfg.Container.Entrypoint, EntrypointTimeout: cfg.Container.EntrypointTimeout, Ready: beside("berth-ready"),
		Scratch: func(memory int64) launcher.Scratch { return scratch(&cfg.Container, memory) },
	}
}

// scratch is where changes go in a job that may use so many bytes of memory.
func scratch(c *config.Container, memory int64) launcher.Scratch {
	return launcher.Scratch{Memory: c.MemoryLimit(memory), Folder: c.Scratch, OnDisk: c.Changes == config.OnScratch}
}

// A broken node has no image for anybody.
type broken struct{ err error }

func (b broken) Image(context.Context, *step.Request, step.User) (step.Image, error) {
	return nil, b.err
}

func (b broken) Catalogue(context.Context) (*os.File, error) { return nil, b.err }

func (b broken) Kept(*step.Request) error { return b.err }

// Report implements step.Node: a node without settings knows no place for it.
func (broken) Report(*step.Report) {}

func (b broken) UserNamespaces(context.Context, uint32, launcher.User) (*launcher.UserNamespaces, error) {
	return nil, b.err
}

// maxLog bounds the log in bytes: the run folder is memory, and what is
// logged here are failures that users can cause.
const maxLog = 1 << 20

// openLog appends to a file that root owns in the run folder. A node without
// one has had no prolog yet; the failure that follows says so to the user.
func openLog(runDir string) *logrus.Logger {
	log := logrus.New()
	log.SetOutput(io.Discard)
	path := filepath.Join(runDir, "step.log")
	flags := os.O_CREATE | os.O_APPEND | os.O_WRONLY
	if st, err := os.Stat(path); err == nil && st.Size() > maxLog {
		flags |= os.O_TRUNC
	}
	if f, err := os.OpenFile(path, flags, 0o600); err == nil {
		log.SetOutput(f)
	}
	log.SetFormatter(&logrus.TextFormatter{DisableColors: true, FullTimestamp: true})
	return log
}

// berthPath is PREFIX/bin/berth for PREFIX/libexec/berth/berth-create.
func berthPath() string {
	exe, err := os.Executable()
	if err != nil {
		return "berth"
	}
	return filepath.Join(filepath.Dir(exe), "..", "..", "bin", "berth")
}

// beside is a file or folder of Berth's beside this program: what containers
// get of it, and berth-join.
func beside(name string) string {
	exe, err := os.Executable()
	if err != nil {
		return name
	}
	return filepath.Join(filepath.Dir(exe), name)
}

// A node is this node, as the step's helper needs it.
type node struct {
	cfg   *config.Config
	berth string
	// job is set where the request cannot name it: PBS's ids are no numbers.
	// account and queue are that job's.
	job            jobstate.JobID
	account, queue string
	asked          jobstate.Folder // what Image has asked for
}

func (n *node) Image(ctx context.Context, r *step.Request, user step.User) (step.Image, error) {
	req := jobstate.Request{
		Job: n.id(r.Job), UID: uint32(r.User.UID), GID: uint32(r.User.GID), Image: r.Image, Digest: r.Digest,
		Account: n.account, Partition: n.queue,
	}
	n.asked = jobstate.Locate(n.cfg.Node.RunDir, req)
	folder, err := jobstate.Ensure(ctx, []string{n.berth}, n.cfg.Node.RunDir, req)
	if err != nil {
		return nil, err
	}
	ready, err := folder.Wait(ctx, user.Tell)
	if wanted, ok := errors.AsType[*jobstate.LoginWantedError](err); ok {
		ready, err = n.withLogin(ctx, req, user, wanted)
	}
	if err != nil {
		return nil, err
	}
	return &image{ready: ready, runDir: n.cfg.Node.RunDir}, nil
}

// Kept implements step.Node.
func (n *node) Kept(r *step.Request) error {
	return jobstate.SetKept(n.cfg.Node.RunDir, n.id(r.Job), jobstate.Kept{UID: r.User.UID, GID: r.User.GID, Groups: r.User.Groups})
}

func (n *node) id(number uint32) jobstate.JobID {
	if n.job != "" {
		return n.job
	}
	return jobstate.JobID(strconv.FormatUint(uint64(number), 10))
}

// UserNamespaces opens what an earlier step of the job pinned, or makes and
// pins a pair.
func (n *node) UserNamespaces(ctx context.Context, job uint32, u launcher.User) (*launcher.UserNamespaces, error) {
	mounts, err := launcher.OpenMounts(ctx, n.cfg.Node.RunDir)
	if err != nil {
		return nil, err
	}
	defer mounts.Close()
	name := jobstate.PinName(n.id(job))
	users, err := openPins(mounts, name)
	if err == nil && users.Check(u.UID) == nil {
		return users, nil
	}
	if err == nil {
		// A job of somebody else had this number and its epilog never ran.
		users.Close()
		err = mounts.Unpin(ctx, name)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if n.cfg.Container.SubIDs {
		if u.SubIDs, err = subIDs(u); err != nil {
			return nil, err
		}
	}
	return makePins(ctx, mounts, name, u)
}

// subIDs are the further ids that the node gives a user, whom its files may
// name or number.
func subIDs(u launcher.User) (launcher.SubIDs, error) {
	name := ""
	if known, err := user.LookupId(strconv.Itoa(u.UID)); err == nil {
		name = known.Username
	}
	ids, err := launcher.FindSubIDs(name, u.UID, u.GID)
	return ids, fault.Wrap("find the user's further ids", "", fault.Site, "correct that file on the node, or set container.sub_ids = false", err)
}

// makePins makes a pair of namespaces and pins it. Of two steps that start
// together one wins; the other's pair is dropped, so that their ranks share
// one.
func makePins(ctx context.Context, mounts *launcher.Mounts, name string, u launcher.User) (*launcher.UserNamespaces, error) {
	users, err := launcher.NewUserNamespaces(ctx, "/proc/self/exe", u)
	if err != nil {
		return nil, err
	}
	err = mounts.Pin(ctx, name, launcher.Pin{Name: jobstate.PinOuter, NS: users.Outer}, launcher.Pin{Name: jobstate.PinInner, NS: users.Inner})
	if errors.Is(err, fs.ErrExist) {
		users.Close()
		return openPins(mounts, name)
	}
	if err != nil {
		users.Close()
		return nil, err
	}
	return users, nil
}

func openPins(mounts *launcher.Mounts, job string) (*launcher.UserNamespaces, error) {
	outer, err := mounts.OpenPin(job, jobstate.PinOuter)
	if err != nil {
		return nil, err
	}
	inner, err := mounts.OpenPin(job, jobstate.PinInner)
	if err != nil {
		outer.Close()
		return nil, err
	}
	return &launcher.UserNamespaces{Outer: outer, Inner: inner}, nil
}

// An image is one that is leased for the job and mounted.
type image struct {
	ready  jobstate.Ready
	runDir string
}

func (i *image) Mount(ctx context.Context) (*os.File, error) {
	mounts, err := launcher.OpenMounts(ctx, i.runDir)
	if err != nil {
		return nil, err
	}
	defer mounts.Close()
	return mounts.CloneImage(i.ready.Mount)
}

func (i *image) Digest() string { return i.ready.Digest }

func (i *image) Pinned() bool { return i.ready.Pinned }

func (i *image) Squashfs() (*os.File, error) { return os.Open(i.ready.Squashfs()) }

func (i *image) Config() (*os.File, error) { return os.Open(i.ready.Config()) }
