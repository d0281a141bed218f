package launcher

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/berth-hpc/berth/fault"
	"golang.org/x/sys/unix"
)

// A Container is a mount namespace with an assembled root file system, ready
// to be joined, and what its tasks apply (package wire's format). It needs no
// process: it lives while a task is in it or the descriptor is open.
type Container struct {
	Mount, Result *os.File
	// Dir is where Exec starts the command if the container has that folder;
	// "" means where all tasks start.
	Dir string
	// Notes are lines for the user: what was left out, and why. Control
	// characters are cleaned away.
	Notes []string
	// Sources are the paths that were, or would have been, mounted.
	Sources []Source
	// Made is what the process that built it says of it: the user's.
	Made Made
	// Own are further namespaces that it has of its own.
	Own []Namespace
	// Changes is the folder of what is changed in it, as package changes has it,
	// where Request.Save asked for that and something can be changed. It is the
	// word of the user's process: for processes of theirs alone.
	Changes *os.File
	// NewPID has the first task make a pid namespace. It is not for tasks of
	// Slurm's, which have to execute themselves (setns(2): a pid namespace is
	// for children).
	NewPID bool
}

// MaxResult bounds a container's result, in bytes (JOIN_RESULT_MAX in join.h).
const MaxResult = 2 << 20

// Close releases the descriptors.
func (c *Container) Close() {
	c.Mount.Close()
	c.Result.Close()
	if c.Changes != nil {
		c.Changes.Close()
	}
	for _, ns := range c.Own {
		ns.Close()
	}
}

// A Creation is everything that making one container takes.
type Creation struct {
	Exe     string // berth-create
	Users   *UserNamespaces
	Request *Request
	// Config is the image's config file, nil for none.
	Config *os.File
	// Catalogue is what the machine has of devices (JSON of devices.Catalogue),
	// nil for none.
	Catalogue *os.File
	// Stage is root's part on a managed node; nil when the user does it all.
	Stage *Stage
	// Squashfs is the image's file for an image of kind RootFUSE.
	Squashfs *os.File
	// Hold stays open for as long as the container lives, if its image is
	// served by FUSE; may be nil. The server has it, which ends with the
	// container.
	Hold *os.File
}

// Create builds the container. Building happens in a process of the user's
// (`berth-create inside`); what that process hands back is checked for its
// type and used for the same user's tasks alone. The error is a fault.
func (c *Creation) Create(ctx context.Context) (*Container, error) {
	var container *Container
	err := c.ask(ctx, func(channel *os.File) (err error) {
		container, err = c.converse(ctx, channel)
		return err
	})
	return container, err
}

// explain adds what the builder printed to an error that has no words for the
// user of its own.
func explain(err, exit error, output []byte) error {
	var f *fault.Error
	if errors.As(err, &f) || errors.Is(err, ErrKeptInUse) {
		return err
	}
	if exit != nil {
		err = fmt.Errorf("%w (%w)", err, withOutput(exit, output))
	}
	return fault.Wrap("create container", "", fault.Bug, "", err)
}

func (c *Creation) start(ctx context.Context, channel *os.File, stderr *bytes.Buffer) (*exec.Cmd, error) {
	cmd := exec.CommandContext(ctx, c.Exe, "inside", "--userns=4")
	cmd.Args[0] = "berth-create"
	cmd.Env = fixedEnvironment()
	cmd.Dir = "/"
	cmd.Stderr = stderr
	cmd.ExtraFiles = []*os.File{channel, c.Users.Outer}
	if c.Stage == nil {
		return cmd, cmd.Start()
	}
	c.Request.Work = filepath.Join(c.Stage.Dir, stageWork)
	if c.Stage.Image != nil {
		c.Request.Image = Root{Kind: RootMounted, Path: filepath.Join(c.Stage.Dir, stageImage)}
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: credential(c.Request.User), Setsid: true}
	return cmd, c.Stage.run(cmd.Start)
}

func (c *Creation) converse(ctx context.Context, channel *os.File) (*Container, error) {
	served, kept := false, false
	for {
		r, files, err := receiveReply(channel)
		if err != nil {
			return nil, err
		}
		switch {
		case r.Failure != nil:
			closeAll(files)
			return nil, r.Failure.Err()
		case r.InUse:
			closeAll(files)
			return nil, ErrKeptInUse
		case r.Ready:
			return c.newContainer(r, files)
		case r.Scratch != "" && !kept:
			kept = true
			if err := c.startJanitor(ctx, r.Scratch, files); err != nil {
				return nil, err
			}
			continue
		case r.Held && !kept:
			kept = true
			if err := c.startKeeper(ctx, files); err != nil {
				return nil, err
			}
			continue
		case !r.FUSE || served: // one server, whatever the user's process says
			closeAll(files)
			return nil, errors.New("the container's builder broke the protocol")
		}
		served = true
		if err := c.serve(ctx, files, r.Offset); err != nil {
			return nil, err
		}
	}
}

// serve serves the image that the builder mounted: ours, or for RootFile the
// one that the user opened and sent along.
func (c *Creation) serve(ctx context.Context, files []*os.File, offset int64) error {
	defer closeAll(files)
	switch {
	case c.Request.Image.Kind == RootFUSE && len(files) == 1:
		return c.serveSquashfs(ctx, c.Squashfs, 0, files[0])
	case c.Request.Image.Kind == RootFile && len(files) == 2:
		err := c.serveSquashfs(ctx, files[1], offset, files[0])
		return fault.Wrap("mount", c.Request.Image.Path, fault.User, "copy or make the file again, if it is damaged or cut off; berth pull reads more kinds of compression", err)
	}
	return fmt.Errorf("the container's builder asked for FUSE with %d descriptors", len(files))
}

// maxNotes bounds what the user's process can make us pass on in one message.
const maxNotes = 8

// newContainer takes the descriptors only when they are what they should be:
// the process that sent them ran as the user.
func (c *Creation) newContainer(r *Reply, files []*os.File) (*Container, error) {
	kinds := c.Request.Made()
	files, changed := c.Request.takeChanges(r, files)
	err := fmt.Errorf("the container's builder sent %d descriptors", len(files))
	if len(files) == 2+len(kinds) {
		err = checkNamespaces(files[0], files[2:], kinds, c.Users.Outer)
	}
	if err != nil {
		closeAll(append(files, changed...))
		return nil, err
	}
	container := &Container{Mount: files[0], Result: files[1], NewPID: slices.Contains(c.Request.Unshare, UnsharePID)}
	for i, kind := range kinds {
		container.Own = append(container.Own, Namespace{kind, files[2+i]})
	}
	if len(changed) > 0 {
		container.Changes = changed[0]
	}
	container.Sources, container.Made = r.Sources, r.Made.Bounded()
	for _, n := range r.Notes[:min(len(r.Notes), maxNotes)] {
		container.Notes = append(container.Notes, fault.Clean(n))
	}
	return container, nil
}

// takeChanges takes the folder of changes off the descriptors, if there is one.
func (r *Request) takeChanges(reply *Reply, files []*os.File) (rest, changed []*os.File) {
	n := len(files)
	if !r.Save || !reply.Changes || n == 0 {
		return files, nil
	}
	return files[:n-1], files[n-1:]
}

func checkNamespaces(mount *os.File, own []*os.File, kinds []string, outer *os.File) error {
	if err := checkNSType(mount, unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("the container's mount namespace: %w", err)
	}
	for i, kind := range kinds {
		if err := checkOwn(own[i], kind, outer); err != nil {
			return err
		}
	}
	return nil
}
