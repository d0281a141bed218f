package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/berth-hpc/berth/fault"
)

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
