package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berth-hpc/berth/cmd/internal/bundle"
	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/imagecache/store"
)

type ociBundle struct {
	Bundle        string `short:"b" default:"." placeholder:"DIR" help:"The bundle (default: the current folder)."`
	PidFile       string `placeholder:"FILE" help:"Write the number of the process into this file."`
	ConsoleSocket string `hidden:""`
	ID            string `arg:"" name:"id" help:"What the container is called."`

	NoPivot bool `hidden:""`
}

// record makes the container's folder, with this process as its own.
func (c *ociBundle) record(folder ociFolder, b *bundle.Bundle, waits bool) (dir string, err error) {
	_, dir, err = folder.read(c.ID) // forgets one that has ended
	if dir == "" {
		return "", err
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", fault.Wrap("make container", c.ID, fault.User, "delete the one of this name: berth oci delete "+c.ID, err)
	}
	start, err := store.ProcessStart(os.Getpid())
	if err == nil && waits {
		err = unix.Mkfifo(filepath.Join(dir, ociStartName), 0o600)
	}
	if err == nil {
		err = writeOCIState(dir, &ociState{
			ID: c.ID, PID: os.Getpid(), Start: start, Bundle: b.Dir, Created: time.Now().UTC(), Run: !waits, Annotations: b.Annotations,
		})
	}
	if err == nil && c.PidFile != "" {
		err = os.WriteFile(c.PidFile, []byte(strconv.Itoa(os.Getpid())), 0o644)
	}
	if err != nil {
		_ = os.RemoveAll(dir)
	}
	return dir, err
}

// ociRunCmd becomes the process of a container.
type ociRunCmd struct {
	ociBundle

	// Ready is for `berth oci create`: the descriptor of a pipe that closes
	// when the container waits for its start.
	Ready int `hidden:""`
}

// Run does not return when all is well. The container's folder stays until
// `berth oci delete`, also when it could not be made, as runc's does not.
func (c *ociRunCmd) Run(ctx context.Context, s *session, oci *ociCmd) error {
	folder, err := oci.open(s)
	if err != nil {
		return err
	}
	b, err := bundle.Read(c.Bundle)
	if err != nil {
		return err
	}
	for _, note := range b.Notes {
		s.log.Infof("%s: %s", c.ID, note)
	}
	dir, err := c.record(folder, b, c.Ready > 0)
	if err != nil {
		return err
	}
	err = runBundle(ctx, s, b, func() error { return c.await(dir) })
	_ = os.RemoveAll(dir)
	return err
}

// await says that the container is there, and waits for its start.
func (c *ociRunCmd) await(dir string) error {
	if c.Ready <= 0 {
		return nil
	}
	if err := unix.Close(c.Ready); err != nil {
		return err
	}
	path := filepath.Join(dir, ociStartName)
	f, err := os.Open(path) // waits for a writer
	if err != nil {
		return err
	}
	f.Close()
	return os.Remove(path)
}

// runBundle becomes the process of a bundle; before is called when only that
// is left to do.
func runBundle(ctx context.Context, s *session, b *bundle.Bundle, before func() error) error {
	own := *s
	own.environ, own.lookupEnv = func() []string { return b.Env }, lookUpIn(b.Env, s.lookupEnv)
	cfg, err := own.settings()
	if err != nil {
		return err
	}
	cfg.Container.MountDir, cfg.Container.MountHome = false, false
	c := runCmd{
		Image: b.Root, Command: b.Args, Mount: b.Mounts, Workdir: b.Cwd, RemapRoot: b.AsRoot,
		Writable: !b.ReadOnly, ReadOnly: b.ReadOnly, before: before, given: namesOf(b.Env),
	}
	return c.runPath(ctx, &own, cfg)
}

// lookUpIn looks variables up in the bundle's environment, which is the job's:
// the caller's may be a daemon's, and counts for Berth's own settings alone.
func lookUpIn(env []string, caller func(string) (string, bool)) func(string) (string, bool) {
	return func(name string) (string, bool) {
		for i := len(env) - 1; i >= 0; i-- {
			if value, is := strings.CutPrefix(env[i], name+"="); is {
				return value, true
			}
		}
		if strings.HasPrefix(name, "BERTH_") || strings.HasPrefix(name, "XDG_") {
			return caller(name)
		}
		return "", false
	}
}

// namesOf keeps all variables as they are, whatever the tree says of them.
func namesOf(env []string) variables {
	var names variables
	for _, v := range env {
		name, _, _ := strings.Cut(v, "=")
		names = append(names, name)
	}
	return names
}

// ociCreateCmd starts `berth oci run` and returns when that waits.
type ociCreateCmd struct{ ociBundle }

// Run leaves a process behind.
func (c *ociCreateCmd) Run(s *session, oci *ociCmd) error {
	if _, err := oci.open(s); err != nil { // it may be another user from now on
		return err
	}
	ready, theirs, err := os.Pipe()
	if err != nil {
		return err
	}
	defer ready.Close()
	args := []string{"oci", "--root=" + oci.Root, "run", "--ready=3", "--bundle=" + c.Bundle, "--pid-file=" + c.PidFile, "--", c.ID}
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Args[0] = "berth"
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Start()
	theirs.Close()
	if err != nil {
		return fault.Wrap("start the container's process", "", fault.Bug, "", err)
	}
	_, _ = ready.Read(make([]byte, 1)) // until it is closed: it waits, or has ended
	return c.created(s, oci, cmd)
}

func (c *ociCreateCmd) created(s *session, oci *ociCmd, cmd *exec.Cmd) error {
	folder, err := oci.open(s)
	if err != nil {
		return err
	}
	if st, dir, err := folder.read(c.ID); err == nil && st.PID == cmd.Process.Pid && st.status(dir) == "created" {
		return cmd.Process.Release()
	}
	err = cmd.Wait()
	return &fault.Error{Op: "create container", Arg: c.ID, Blame: fault.User, Err: fmt.Errorf("its process ended: %w", err), Remedy: "its words are above"}
}

// ociStartCmd lets the process of a container go.
type ociStartCmd struct {
	ID string `arg:"" name:"id" help:"The container."`
}

// Run returns when the process has heard.
func (c *ociStartCmd) Run(s *session, oci *ociCmd) error {
	st, dir, err := oci.container(s, c.ID)
	if err != nil {
		return err
	}
	if status := st.status(dir); status != "created" {
		return &fault.Error{Op: "start container", Arg: c.ID, Blame: fault.User, Err: errors.New("it is " + status)}
	}
	// Not blocking, because a process that was killed reads no more.
	f, err := os.OpenFile(filepath.Join(dir, ociStartName), os.O_WRONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return fault.Wrap("start container", c.ID, fault.User, "create it again", err)
	}
	return f.Close()
}
