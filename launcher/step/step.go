// Package step is the helper of one Slurm step on one node: it waits until
// the step's image is on the node, has one container made, and hands its
// namespaces to every task. The Slurm plugin starts it as root
// (`berth-create step`) from slurmstepd's user_init hook, with one end of a
// sequenced-packet socket, the control socket, as descriptor 3.
//
// What arrives there, in package wire's format:
//
//	slurmstepd (root)             -> the request: job, uid, image, options
//	each task before it drops     -> its number and a reply socket of its own;
//	root (task_init_privileged)      task 0 adds its mount namespace
//
// and on task 0's reply socket, from the user: the paths of the job. Every
// task gets one answer, the container's namespaces or an error. Task 0 also
// gets progress lines, and is asked for the user's login where a registry wants
// one that the node did not find. The helper ends when every task has its answer, or
// when slurmstepd and all tasks that wait are gone.
package step

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/launcher"
	"github.com/berth-hpc/berth/launcher/devices"
	"github.com/sirupsen/logrus"
)

// A Node is what the helper needs of the node it runs on.
type Node interface {
	// Image waits until the step's image is on the node, starting its
	// preparation if nobody did.
	Image(ctx context.Context, r *Request, user User) (Image, error)
	// Catalogue opens what the node has of devices (devices.Catalogue); nil for
	// none.
	Catalogue(ctx context.Context) (*os.File, error)
	// UserNamespaces returns the namespaces that all containers of the job on
	// this node share, and makes them for the first.
	UserNamespaces(ctx context.Context, job uint32, u launcher.User) (*launcher.UserNamespaces, error)
	// Kept notes that containers of the job are to be removed with it.
	Kept(r *Request) error
	// Report notes what became of the request.
	Report(r *Report)
}

// A User is the step's user, to a Node, by way of local task 0.
type User interface {
	// Tell gets a line for the user.
	Tell(line string)
	// Login asks the job's session for the login for the step's image. What it
	// returns is what the user's process wrote, by credentials.WriteAnswer if it
	// is Berth's own; an error says why there is nothing, ErrNoSession that
	// nobody can be asked.
	Login(ctx context.Context) (string, error)
}

// An Image is an image on the node.
type Image interface {
	// Mount returns a detached copy of the image's mount.
	Mount(ctx context.Context) (*os.File, error)
	// Squashfs opens the image's file, to be served with FUSE.
	Squashfs() (*os.File, error)
	// Pinned says that all nodes of the job get the same image, although its
	// request has no digest.
	Pinned() bool
	// Digest names the image.
	Digest() string
	// Config opens the image's config as the store keeps it.
	Config() (*os.File, error)
}

// Settings are the site's choices.
type Settings struct {
	Exe         string // berth-create, to be started again as the user
	RunDir      string // /run/berth
	Site        launcher.Site
	MountHome   bool             // when the job does not say
	MountDir    bool             // whether the job's working directory is visible
	Remap       bool             // when the job does not say
	Writable    bool             // when the job does not say
	Pins        bool             // there is a cluster's store, in which nodes pin what a job's tag means
	Slurm       bool             // Slurm's commands work in the container, when the job does not say
	Entrypoint  bool             // the image's is run before the tasks, when the job does not say
	Devices     devices.Wish     // what the site says of devices
	HostMPI     launcher.HostMPI // for jobs that want it
	CheckMPI    bool             // whether the image's MPI is compared with the step's
	HookTimeout time.Duration
	IDMap       bool // false forces what kernels without squashfs idmap do

	// Kept says where containers with a name are, and for how long.
	Kept launcher.Kept

	// Ready is the program berth-ready; the entrypoint may take so long.
	Ready             string
	EntrypointTimeout time.Duration

	SlurmCommands string // the folder that has them on the node (spank/client)
	// Scratch says where changes go, for a job that may use so many bytes of
	// memory; 0 where nothing says.
	Scratch func(memory int64) launcher.Scratch
}

// progressEvery is how often a waiting task gets a line.
const progressEvery = 10 * time.Second

// Run serves one step. The tasks have been told of an error, and the log too.
func Run(ctx context.Context, log logrus.FieldLogger, control *os.File, node Node, set Settings) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	conn, err := newControl(control)
	if err != nil {
		return err
	}
	req, err := conn.request()
	if err != nil {
		return err
	}
	log = log.WithFields(logrus.Fields{"job": req.Job, "step": req.label().Step, "uid": req.User.UID})
	tasks := newTasks(req.Tasks)
	go func() {
		if err := conn.accept(tasks); err != nil {
			log.WithError(err).Warn("control socket")
		}
		// Every task that there will ever be has asked.
		tasks.watch(ctx)
		cancel()
	}()
	report := newReport(req, set)
	container, err := create(ctx, log, report, tasks, node, set)
	if errors.Is(err, context.Canceled) {
		report.Gone = true
		if !report.Built {
			report.waited()
		}
		node.Report(report)
		return nil // nobody is left to tell
	}
	if err != nil {
		log.WithError(err).Error("no container")
	}
	k := kind{remap: orDefault(req.Remap, set.Remap), slurm: orDefault(req.Slurm, set.Slurm)}
	if container != nil && container.joined {
		k = kind{remap: container.remap, workdir: req.Workdir}
	}
	if report.Err = err; container != nil {
		report.Container, report.Joined = container.Container, container.joined
	}
	tasks.settle(container, k, err)
	tasks.wait()
	node.Report(report)
	return err
}

// create is the order of things: the image, task 0's view of the node, the
// namespaces, the container.
func create(ctx context.Context, log logrus.FieldLogger, report *Report, tasks *tasks, node Node, set Settings) (*container, error) {
	req := report.Request
	if err := req.checkSave(); err != nil {
		return nil, err
	}
	made := make(chan madeNamespaces, 1)
	go func() {
		users, err := node.UserNamespaces(ctx, req.Job, req.User)
		made <- madeNamespaces{users, err}
	}()
	if req.Kept != nil {
		return createKept(ctx, log, report, tasks, node, set, made)
	}
	image, err := req.image(set, func() (Image, error) { return waitForImage(ctx, req, tasks, node) })
	report.waited()
	if err != nil {
		return nil, err
	}
	view, err := tasks.firstView(ctx)
	if err != nil {
		return nil, err
	}
	created := report.building()
	ns := <-made
	if ns.err != nil {
		return nil, namespacesFault(ns.err)
	}
	c, err := build(ctx, req, view, ns.users, image, node, set)
	created()
	if err != nil {
		ns.users.Close()
		return nil, err
	}
	log.WithFields(logrus.Fields{
		"image": fault.Clean(req.Image), "waited_s": seconds(report.Waited), "create_s": seconds(report.Created),
	}).Info("container ready")
	saved, err := newSaved(req, view, c, image)
	if err != nil {
		ns.users.Close()
		return nil, err
	}
	return &container{users: ns.users, Container: c, notes: req.notes(view.job), saved: saved}, nil
}

// image has wait get the step's image; it is nil for a file of the user's. On
// several nodes a tag has to mean the same, which submission or the cluster's
// store sees to.
func (r *Request) image(set Settings, wait func() (Image, error)) (Image, error) {
	switch {
	case r.imageIsFile():
		return nil, nil
	case r.mustBePinned() && !set.Pins:
		return nil, r.errUnpinned("")
	}
	image, err := wait()
	if err == nil && r.mustBePinned() && !image.Pinned() {
		err = r.errUnpinned(", and this node cannot pin it in the cluster's store (cluster.dir, cluster.writers)")
	}
	return image, err
}

// madeNamespaces comes from a goroutine: they are made while the image and
// task 0 are waited for.
type madeNamespaces struct {
	users *launcher.UserNamespaces
	err   error
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.3f", d.Seconds()) }

func waitForImage(ctx context.Context, req *Request, tasks *tasks, node Node) (Image, error) {
	lines := make(chan string, 1)
	go tasks.report(ctx, lines)
	return node.Image(ctx, req, &user{tasks: tasks, image: req.Image, lines: lines})
}

// A user is the User of one step.
type user struct {
	tasks *tasks
	image string
	lines chan string // has room for one
}

// Tell implements User: only the latest line matters.
func (u *user) Tell(line string) {
	select {
	case <-u.lines:
	default:
	}
	u.lines <- line
}

// Login implements User.
func (u *user) Login(ctx context.Context) (string, error) { return u.tasks.login(ctx, u.image) }

func build(ctx context.Context, req *Request, view *view, users *launcher.UserNamespaces, image Image, node Node, set Settings) (*launcher.Container, error) {
	catalogue, err := node.Catalogue(ctx)
	if err != nil {
		return nil, fault.Wrap("read the node's devices", "", fault.Site, "run berth doctor on the node", err)
	}
	if catalogue != nil {
		defer catalogue.Close()
	}
	c := &launcher.Creation{
		Exe: set.Exe, Users: users,
		Request: req.launcherRequest(view, set), Catalogue: catalogue,
		Stage: &launcher.Stage{View: view.mounts, Dir: set.RunDir},
	}
	if image == nil { // opened by the user's own process, not here
		c.Request.Image = launcher.Root{Kind: launcher.RootFile, Path: req.Image}
		return c.Create(ctx)
	}
	config, err := image.Config()
	if err != nil {
		return nil, fault.Wrap("read the image's config", "", fault.Site, "", err)
	}
	defer config.Close()
	c.Config = config
	if err := attachImage(ctx, c, image, set); err != nil {
		return nil, fault.Wrap("attach the image", "", fault.Site, "", err)
	}
	if c.Stage.Image != nil {
		defer c.Stage.Image.Close()
	}
	return c.Create(ctx)
}

// attachImage chooses between the kernel's mount and FUSE. Without idmap a
// writable container can't change files that root owns on disk, because root
// is not mapped in it; FUSE maps the owner itself, at the price of slower
// metadata, so only writable containers on older kernels use it.
func attachImage(ctx context.Context, c *launcher.Creation, image Image, set Settings) error {
	mount, err := image.Mount(ctx)
	if err != nil {
		return err
	}
	mapped := false
	if set.IDMap {
		if mapped, err = launcher.IDMap(mount, c.Users.Outer); err != nil {
			mount.Close()
			return err
		}
	}
	if mapped || !c.Request.Writable {
		c.Stage.Image = mount
		return nil
	}
	mount.Close()
	file, err := image.Squashfs()
	if err != nil {
		return err
	}
	c.Request.Image, c.Squashfs = launcher.Root{Kind: launcher.RootFUSE}, file
	return nil
}
