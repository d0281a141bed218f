package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
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

// ociCmd is the command line of an OCI runtime, as runc has it, for Slurm's
// own --container (oci.conf) and other clients that run bundles as the user.
type ociCmd struct {
	Root string `placeholder:"DIR" help:"Where states are (default: /run/berth-oci/UID if the site made that folder, else the user's runtime folder)."`
	User string `placeholder:"NAME" help:"As root: be this user before anything else."`

	Log           string `hidden:""`
	LogFormat     string `hidden:""`
	Debug         bool   `hidden:""`
	Rootless      string `hidden:""`
	SystemdCgroup bool   `hidden:""`

	Create ociCreateCmd `cmd:"" help:"Make a container, whose process waits for its start."`
	Start  ociStartCmd  `cmd:"" help:"Let the process of a container run."`
	Run    ociRunCmd    `cmd:"" help:"Make a container and become its process."`
	State  ociStateCmd  `cmd:"" help:"Print what a container is doing."`
	Kill   ociKillCmd   `cmd:"" help:"Send a signal to a container."`
	Delete ociDeleteCmd `cmd:"" help:"Forget a container that has ended."`
	List   ociListCmd   `cmd:"" help:"List the ids of containers."`
}

// open becomes the user, if root is to, and opens their states. Root reads no
// state that a user wrote, and sends no signal that a user could not send.
func (c *ociCmd) open(s *session) (ociFolder, error) {
	if c.User != "" && s.user.uid == 0 {
		if err := dropTo(c.User); err != nil {
			return ociFolder{}, fault.Wrap("become", c.User, fault.Site, "give a user that this node knows", err)
		}
		s.user = currentAccount()
	}
	return openOCIFolder(s, c.Root)
}

// container reads what is known of a container; dir is "" where that is no name
// of one.
func (c *ociCmd) container(s *session, id string) (st *ociState, dir string, err error) {
	folder, err := c.open(s)
	if err != nil {
		return nil, "", err
	}
	return folder.read(id)
}

func dropTo(name string) error {
	u, err := user.Lookup(name)
	if err != nil {
		return err
	}
	texts, err := u.GroupIds()
	if err != nil {
		return err
	}
	ids := make([]int, len(texts)+2)
	for i, text := range append([]string{u.Uid, u.Gid}, texts...) {
		if ids[i], err = strconv.Atoi(text); err != nil {
			return err
		}
	}
	if ids[0] == 0 {
		return errors.New("that is root again")
	}
	return errors.Join(syscall.Setgroups(ids[2:]), syscall.Setresgid(ids[1], ids[1], ids[1]), syscall.Setresuid(ids[0], ids[0], ids[0]))
}

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

// ociStateCmd prints the state as the specification has it.
type ociStateCmd struct {
	ID string `arg:"" name:"id" help:"The container."`
}

// Run fails for a container that there is not.
func (c *ociStateCmd) Run(s *session, oci *ociCmd) error {
	st, dir, err := oci.container(s, c.ID)
	if err != nil {
		return err
	}
	out := struct {
		Version     string            `json:"ociVersion"`
		ID          string            `json:"id"`
		Status      string            `json:"status"`
		PID         int               `json:"pid"`
		Bundle      string            `json:"bundle"`
		Annotations map[string]string `json:"annotations,omitempty"`
	}{"1.0.2", st.ID, st.status(dir), st.PID, st.Bundle, st.Annotations}
	if out.Status == "stopped" {
		out.PID = 0
	}
	data, err := json.MarshalIndent(out, "", "  ")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(s.stdout, "%s\n", data)
	return err
}

// ociKillCmd sends a signal.
type ociKillCmd struct {
	All    bool   `short:"a" help:"Also to every other process in the container."`
	ID     string `arg:"" name:"id" help:"The container."`
	Signal string `arg:"" optional:"" default:"TERM" help:"Its name or number (default: TERM)."`
}

// Run fails for a container that has ended.
func (c *ociKillCmd) Run(s *session, oci *ociCmd) error {
	sig, err := parseSignal(c.Signal)
	if err != nil {
		return err
	}
	st, _, err := oci.container(s, c.ID)
	if err != nil {
		return err
	}
	p := st.process()
	if p == nil {
		return &fault.Error{Op: "kill container", Arg: c.ID, Blame: fault.User, Err: errors.New("it is stopped")}
	}
	defer p.Close()
	if c.All {
		for _, pid := range sameContainer(st.PID) {
			_ = unix.Kill(pid, sig) // it may have ended
		}
	}
	return fault.Wrap("kill container", c.ID, fault.User, "", unix.PidfdSendSignal(int(p.Fd()), sig, nil, 0))
}

func parseSignal(text string) (syscall.Signal, error) {
	if n, err := strconv.Atoi(text); err == nil && n > 0 && n <= 64 {
		return syscall.Signal(n), nil
	}
	name := "SIG" + strings.TrimPrefix(strings.ToUpper(text), "SIG")
	if sig := unix.SignalNum(name); sig != 0 {
		return sig, nil
	}
	return 0, &fault.Error{Op: "read the signal", Arg: fault.Clean(text), Blame: fault.User, Err: errors.New("there is no such signal")}
}

// ociDeleteCmd forgets a container.
type ociDeleteCmd struct {
	Force bool   `short:"f" help:"Kill it first, and do not mind if it is unknown."`
	ID    string `arg:"" name:"id" help:"The container."`
}

// Run refuses a container that lives.
func (c *ociDeleteCmd) Run(s *session, oci *ociCmd) error {
	st, dir, err := oci.container(s, c.ID)
	if err != nil {
		if c.Force && dir != "" {
			return nil
		}
		return err
	}
	if p := st.process(); p != nil {
		defer p.Close()
		if !c.Force {
			return &fault.Error{
				Op: "delete container", Arg: c.ID, Blame: fault.User, Err: errors.New("it is " + st.status(dir)),
				Remedy: "end it first (berth oci kill), or give --force",
			}
		}
		_ = unix.PidfdSendSignal(int(p.Fd()), unix.SIGKILL, nil, 0) // it may just have ended
	}
	return fault.Wrap("delete container", c.ID, fault.Site, "", os.RemoveAll(dir))
}

// ociListCmd lists containers.
type ociListCmd struct {
	Quiet bool `short:"q" help:"Print ids alone."`
}

// Run prints one line a container: id, process and status.
func (c *ociListCmd) Run(s *session, oci *ociCmd) error {
	folder, err := oci.open(s)
	if err != nil {
		return err
	}
	entries, err := os.ReadDir(folder.path)
	if err != nil {
		return err
	}
	for _, e := range entries {
		st, dir, err := folder.read(e.Name())
		if err != nil {
			continue // on its way in or out
		}
		line := st.ID
		if !c.Quiet {
			line = fmt.Sprintf("%s %d %s", st.ID, st.PID, st.status(dir))
		}
		fmt.Fprintln(s.stdout, line)
	}
	return nil
}
