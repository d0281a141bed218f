package main

import (
	"cmp"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/berth-hpc/berth/cmd/internal/config"
	"github.com/berth-hpc/berth/cmd/internal/site"
	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/imagecache/store"
	"github.com/berth-hpc/berth/launcher"
)

// runCmd runs a command in an image, all of it as the calling user: the image
// is pulled into the user's own store, mounted by FUSE or unpacked, and the
// process becomes the command.
type runCmd struct {
	Image      string   `arg:"" optional:"" name:"image" help:"The image, as for berth pull, or the path of a squashfs or SIF file. It may be left out for a container that has a name already."`
	Command    []string `arg:"" optional:"" passthrough:"" help:"The command and its arguments. Without one, what the image says."`
	Platform   string   `placeholder:"OS/ARCH" help:"Take the image for this platform instead of this machine's."`
	Name       string   `placeholder:"NAME" help:"Keep what is changed in the root file system, and go on with it the next time: a container of this name. Without IMAGE: berth run --name NAME -- COMMAND."`
	Mount      []string `short:"v" sep:"none" placeholder:"SRC:DST[:FLAGS]" help:"Show a path of the host in the container; repeatable. FLAGS, joined by +: ro, rw, nosuid, noexec, and others of mount(8)."`
	Workdir    string   `placeholder:"PATH" help:"Start in this folder of the container."`
	Env        []string `sep:"none" placeholder:"NAME[=VALUE]" help:"Set a variable, or keep the host's value although the image sets it; repeatable."`
	Device     []string `placeholder:"DEVICE" help:"Give the container a device: vendor/class=name or vendor/class=all as berth devices lists them, or a path below /dev; repeatable."`
	HostMPI    bool     `name:"host-mpi" help:"Use the host's MPI in place of the image's, if it fits (settings mpi.host_...)."`
	EnvFile    []string `sep:"none" placeholder:"FILE" help:"Read variables from a file as --env does, one a line; repeatable, and --env comes last."`
	ExplainEnv bool     `help:"Print the environment that the command would have and where each variable comes from, and run nothing."`
	JSON       bool     `name:"json" help:"With --explain-env: print it as JSON."`
	Entrypoint *bool    `negatable:"" help:"Put the image's entrypoint before COMMAND, as docker run does; with --no-entrypoint leave it out where no COMMAND is given."`
	MountHome  *bool    `negatable:"" help:"Show the home folder in the container (setting container.mount_home)."`
	Unshare    []string `placeholder:"NS" help:"Give the container namespaces of its own: net (a network with nothing but a loopback), ipc, uts (a host name), pid. Several, with commas."`
	RemapRoot  bool     `help:"Appear as root in the container, without root's rights."`
	ReadOnly   bool     `name:"readonly" xor:"root" help:"Forbid changes to the container's root file system (setting container.root)."`
	Reuse      bool     `negatable:"" default:"true" help:"Join a container that stands ready, and leave this one ready for further runs (setting container.idle_timeout)."`
	Writable   bool     `xor:"root" help:"Allow changes to the container's root file system; they are gone when it ends."`

	imageCommand []string  // what is run where the user names nothing
	hasVolumes   bool      // the image
	given        variables // of Env and EnvFile

	// before is called when only becoming the command is left; it may be nil.
	before func() error
}

// Run does not return when all is well: the process becomes the command.
func (c *runCmd) Run(ctx context.Context, s *session) error {
	if err := hideMemory(); err != nil {
		return err
	}
	cfg, err := s.settings()
	if err != nil {
		return err
	}
	c.splitCommand(s.args)
	if err := c.check(); err != nil {
		return err
	}
	if c.ExplainEnv {
		return c.explainEnv(ctx, s, cfg)
	}
	if c.Name != "" {
		return c.runNamed(ctx, s, cfg)
	}
	inPlace, err := c.inPlace(s)
	switch {
	case err != nil:
		return err
	case inPlace:
		return c.runPath(ctx, s, cfg)
	}
	if loan := c.borrow(ctx, s, cfg); loan != nil {
		return c.runBorrowed(s, loan)
	}
	image, rootfs, err := s.pullToUse(ctx, cfg, c.imageRef())
	if err != nil {
		return err
	}
	defer rootfs.Close()
	return c.become(ctx, s, cfg, image, rootfs, nil)
}

// become builds the container and turns the process into the command inside. Until
// then rootfs, which Image.Use opened, keeps the image in the store, and
// afterwards whatever serves it. kept is nil for a container without a name.
func (c *runCmd) become(ctx context.Context, s *session, cfg *config.Config, image store.Image, rootfs *os.File, kept *keptContainer) error {
	manifest, err := image.Manifest()
	if err != nil {
		return err
	}
	argv, err := c.argv(manifest.Config)
	if err != nil {
		return err
	}
	req, err := c.request(s, cfg)
	if err != nil {
		return err
	}
	if req.Image, err = s.root(ctx, cfg, image); err != nil {
		return err
	}
	path := filepath.Join(image.Dir(), store.ConfigName)
	settings, err := os.Open(path)
	if err != nil {
		return fault.Wrap("read", path, fault.Site, "remove the image (berth rm) and pull it again", err)
	}
	defer settings.Close()
	creation := &launcher.Creation{Request: req, Config: settings, Squashfs: rootfs}
	if kept != nil {
		if err := kept.use(creation, !c.ReadOnly); err != nil {
			return err
		}
	}
	return c.start(ctx, s, cfg, creation, argv)
}

// start completes and runs a creation, and turns the process into argv inside.
func (c *runCmd) start(ctx context.Context, s *session, cfg *config.Config, creation *launcher.Creation, argv []string) error {
	tools, err := s.findTools()
	if err != nil {
		return err
	}
	creation.Request.Devices = c.devices(s, cfg)
	creation.Request.Variables, creation.Request.CheckMPI = s.launcherVariables(), cfg.MPI.Check
	if c.HostMPI {
		creation.Request.HostMPI = launcher.HostMPI{
			Use: true, Libraries: cfg.MPI.HostLibraries, Folders: cfg.MPI.HostFolders, Env: cfg.MPI.HostEnv,
		}
	}
	creation.Request.Command, creation.Request.HookTimeout = argv[0], cfg.Hooks.Timeout
	if err := s.useCatalogue(cfg, creation); err != nil {
		return err
	}
	if creation.Request.User.SubIDs, err = c.subIDs(s); err != nil {
		return err
	}
	hidden, err := hideDescriptors()
	if err != nil {
		return err
	}
	users, err := launcher.NewUserNamespaces(ctx, tools.create, creation.Request.User)
	if err != nil {
		return explainNamespaces(err)
	}
	defer users.Close()
	creation.Exe, creation.Users = tools.create, users
	if creation.Catalogue != nil {
		defer creation.Catalogue.Close()
	}
	later := c.prepareReuse(s, cfg, creation)
	defer later.close()
	container, err := creation.Create(ctx)
	if err != nil {
		return explainBuilder(err)
	}
	defer container.Close()
	s.printNotes(container.Notes)
	later.offer(ctx, s, tools, users, container)
	if err := hidden.show(); err != nil {
		return err
	}
	if c.before != nil {
		if err := c.before(); err != nil {
			return err
		}
	}
	return container.Exec(tools.join, users, c.RemapRoot, argv, c.given.over(s.withoutLogins()), c.given.names())
}

// root says where the container finds the image's files: mounted by FUSE, or
// unpacked where that can't be had.
func (s *session) root(ctx context.Context, cfg *config.Config, image store.Image) (launcher.Root, error) {
	missing := fuseMissing()
	if missing == nil {
		return launcher.Root{Kind: launcher.RootFUSE}, nil
	}
	images, err := ownStore(cfg)
	if err != nil {
		return launcher.Root{}, err
	}
	space, err := ownSpace(cfg, images)
	if err != nil {
		return launcher.Root{}, err
	}
	tree, err := s.unpacked(ctx, image, space, missing)
	return launcher.Root{Kind: launcher.RootFolder, Path: tree}, err
}

// check refuses, before anything is pulled, what cannot work. It reads the
// user's variables, once: a file may be a pipe.
func (c *runCmd) check() error {
	if c.Image == "" && c.Name == "" && !c.ExplainEnv {
		return &fault.Error{
			Op: "run", Blame: fault.User, Err: errors.New("no image given"),
			Remedy: "usage: berth run [flags] IMAGE [COMMAND ...] (more: berth run --help)",
		}
	}
	var err error
	if c.Unshare, err = launcher.ParseUnshare(c.Unshare); err != nil {
		return err
	}
	c.given, err = readVariables(c.EnvFile, c.Env)
	return err
}

// argv returns the command to run: the user's, else the image's entrypoint and
// command. Whether the entrypoint comes before the user's command is theirs to
// say: on clusters commands are mostly whole ones.
func (c *runCmd) argv(image store.Config) ([]string, error) {
	command := c.Command
	if len(command) > 0 && command[0] == "--" {
		command = command[1:]
	}
	c.imageCommand, c.hasVolumes = c.withImage(image, nil), len(image.Volumes) > 0
	if command = c.withImage(image, command); len(command) == 0 {
		return nil, &fault.Error{
			Op: "run", Arg: c.Image, Blame: fault.User, Err: errors.New("the image names no command"),
			Remedy: "say which: berth run " + cmp.Or(c.Image, "--name "+c.Name+" --") + " COMMAND",
		}
	}
	return command, nil
}

// withImage completes a command, which may be empty, by the image's words.
func (c *runCmd) withImage(image store.Config, command []string) []string {
	entrypoint := len(command) == 0
	if entrypoint {
		command = image.Cmd
	}
	if c.Entrypoint != nil {
		entrypoint = *c.Entrypoint
	}
	if entrypoint {
		command = slices.Concat(image.Entrypoint, command)
	}
	return command
}

// request collects what the container is to be like.
func (c *runCmd) request(s *session, cfg *config.Config) (*launcher.Request, error) {
	dir, err := os.Getwd()
	if err != nil {
		return nil, fault.Wrap("find the working folder", "", fault.User, "change to a folder that exists", err)
	}
	work, err := workFolder(cfg)
	if err != nil {
		return nil, err
	}
	return &launcher.Request{
		User: launcher.User{
			UID: s.user.uid, GID: s.user.gid, Name: s.user.name, Home: s.home(), Shell: s.env("SHELL"),
		},
		Work:     work,
		Writable: c.Writable || cfg.Container.Root == config.Writable && !c.ReadOnly, RemapRoot: c.RemapRoot,
		Scratch: launcher.Scratch{
			Memory: cfg.Container.MemoryLimit(0), Folder: cfg.Container.Scratch, OnDisk: cfg.Container.Changes == config.OnScratch,
		},

		Site: site.Of(&cfg.Container), Mounts: c.Mount,
		MountHome: c.mountHome(cfg), Workdir: c.Workdir,
		Job:      launcher.Job{ID: cmp.Or(s.env("SLURM_JOB_ID"), s.env("PBS_JOBID")), Dir: dir, TmpDir: s.env("TMPDIR")},
		MountDir: cfg.Container.MountDir,
		Unshare:  c.Unshare,
		Label:    launcher.Label{Name: c.Name, Image: c.Image, Env: c.given},
	}, nil
}

// workFolder returns an empty folder that the container covers by a tmpfs,
// the same for all containers.
func workFolder(cfg *config.Config) (string, error) {
	work := filepath.Join(cfg.Store.UserDir, "stage")
	err := os.MkdirAll(work, 0o700)
	return work, fault.Wrap("make", work, fault.Site, "correct the rights of the folder above it", err)
}

func (c *runCmd) mountHome(cfg *config.Config) bool {
	if c.MountHome != nil {
		return *c.MountHome
	}
	return cfg.Container.MountHome
}

func withoutVariable(environ []string, name string) []string {
	var rest []string
	for _, v := range environ {
		if !strings.HasPrefix(v, name+"=") {
			rest = append(rest, v)
		}
	}
	return rest
}
