package main

import (
	"context"
	"errors"
	"io"
	"os"

	"github.com/alecthomas/kong"
)

// cli is the grammar of the command line.
type cli struct {
	Help     helpFlag `short:"h" help:"Show help, also of a command."`
	LogLevel string   `enum:"error,warn,info,debug" default:"warn" help:"Least important messages to print (${enum})."`
	Progress string   `enum:"auto,bar,lines,none" default:"auto" help:"How to show progress (${enum})."`

	Run        runCmd        `cmd:"" help:"Run a command in an image."`
	Exec       execCmd       `cmd:"" help:"Run a command in a container that runs: of a job, or one with a name."`
	Shell      shellCmd      `cmd:"" help:"Start a shell in a container that runs."`
	Pull       pullCmd       `cmd:"" help:"Get an image and keep it ready."`
	Push       pushCmd       `cmd:"" help:"Write a container or an image to a registry."`
	Save       saveCmd       `cmd:"" help:"Write a container or an image to a file or folder."`
	Images     imagesCmd     `cmd:"" help:"List the images at hand."`
	Inspect    inspectCmd    `cmd:"" help:"Show what an image is and where it came from."`
	Rm         rmCmd         `cmd:"" help:"Remove images."`
	Keep       keepCmd       `cmd:"" help:"Keep images although nobody uses them."`
	Gc         gcCmd         `cmd:"" name:"gc" help:"Remove what nobody needs, and make room."`
	Verify     verifyCmd     `cmd:"" help:"Read the images at hand and find damaged ones."`
	Containers containersCmd `cmd:"" help:"List and remove containers that have a name (berth run --name)."`
	Warm       warmCmd       `cmd:"" help:"Have images at hand before jobs ask for them, here or on a partition's nodes."`
	Search     searchCmd     `cmd:"" help:"Look for images in a registry."`
	Tags       tagsCmd       `cmd:"" help:"List the tags of an image in a registry."`
	Simulate   simulateCmd   `cmd:"" help:"Predict how long many nodes take to start an image, and what the registry has to deliver."`
	Resolve    resolveCmd    `cmd:"" help:"Print the digest that a reference stands for."`
	Login      loginCmd      `cmd:"" help:"Log in to a registry, for private images."`
	Logout     logoutCmd     `cmd:"" help:"Forget a login."`
	Credential credentialCmd `cmd:"" hidden:"" help:"Answer which login is for an image. Only Berth starts it."`
	Task       taskCmd       `cmd:"" hidden:"" help:"Run a task of a job in the job's container. Only PBS's hook starts it."`
	SaveStep   saveStepCmd   `cmd:"" name:"save-step" hidden:"" help:"Save the container of a step when its tasks have ended. Only the Slurm plugin starts it."`
	Ps         psCmd         `cmd:"" name:"ps" help:"List the containers that run on this machine: yours, or those of all jobs (root)."`
	Record     recordCmd     `cmd:"" help:"Show what became of a job's containers on this node."`
	Logs       logsCmd       `cmd:"" help:"Show what Berth said for a job on this node."`
	Node       nodeCmd       `cmd:"" help:"What a node of a cluster does before and after a job."`
	Devices    devicesCmd    `cmd:"" help:"List the devices that a container can be given."`
	Doctor     doctorCmd     `cmd:"" help:"Find out what keeps Berth from working on this machine."`
	Policy     policyCmd     `cmd:"" help:"Explain which images the site allows."`
	Config     configCmd     `cmd:"" help:"Show and explain settings."`
	Completion completionCmd `cmd:"" help:"Print what makes a shell complete Berth's command lines."`
	Complete   completeCmd   `cmd:"" hidden:"" help:"Say how a command line may go on. Only shells start it."`
	Man        manCmd        `cmd:"" hidden:"" help:"Write the manual pages."`
	OCI        ociCmd        `cmd:"" name:"oci" help:"Be an OCI runtime: run bundles, for Slurm's --container (oci.conf)."`
	Pack       packCmd       `cmd:"" hidden:""`
	Version    versionCmd    `cmd:"" help:"Print the version."`
}

const description = `Run container images on clusters, or anywhere else: no root, no daemon.

Images come from registries (quay.io/biocontainers/samtools:1.20, docker://ubuntu:24.04), from OCI layouts (oci:FOLDER[:TAG], oci-archive:FILE[:TAG]), and from docker save or podman save (docker-archive:FILE[:TAG], dir:FOLDER). A path that begins with . or / is a squashfs or SIF file, a folder with a root file system, or one of those.

Exit status: that of the command which ran in the image. Else 64 when the caller can correct what is wrong, 75 when the site can and trying again later may help, 70 for a bug, 126 when the command could not be executed, 127 when it was not found, 128+N when signal N ended Berth.`

// A process is what a program of the command line has of its surroundings.
type process struct {
	args      []string
	stdin     io.Reader
	stdout    io.Writer
	stderr    *os.File
	lookupEnv func(name string) (string, bool)
	environ   func() []string
	configDir string // the site's settings
}

// run runs one command line and returns the exit status.
func run(ctx context.Context, p process) int {
	ctx, stop := untilSignal(ctx)
	defer stop()
	err := dispatch(ctx, p)
	if sig, ok := errors.AsType[interrupted](context.Cause(ctx)); ok && err != nil {
		err = sig
	}
	return report(p.stderr, err)
}

func dispatch(ctx context.Context, p process) error {
	var grammar cli
	parser, err := kong.New(&grammar,
		kong.Name("berth"), kong.Description(description), kong.Writers(p.stdout, p.stderr),
		kong.NoDefaultHelp(), kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 100}),
		kong.BindTo(ctx, (*context.Context)(nil)),
	)
	if err != nil {
		return err
	}
	if len(p.args) == 0 {
		p.args = []string{"--help"}
	}
	line, err := parser.Parse(p.args)
	if err != nil {
		return usageError(err)
	}
	log, err := newLogger(p.stderr, grammar.LogLevel)
	if err != nil {
		return err
	}
	return line.Run(&session{process: p, log: log, progress: grammar.Progress, user: currentAccount(), looked: map[string]bool{}})
}

// helpFlag prints help and ends the command line with errHelp. kong's own
// flag would end the process.
type helpFlag bool

// errHelp says that help was asked for and printed: a success.
var errHelp = errors.New("help was printed")

// IgnoreDefault keeps the flag from being called when it is not given.
func (helpFlag) IgnoreDefault() {}

// BeforeReset runs before kong misses arguments.
func (helpFlag) BeforeReset(line *kong.Context) error {
	if err := line.PrintUsage(false); err != nil {
		return err
	}
	return errHelp
}
