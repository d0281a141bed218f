package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/berth-hpc/berth/fault"
	"github.com/berth-hpc/berth/launcher"
	"golang.org/x/sys/unix"
)

// shellCmd runs an interactive shell in a container that runs.
type shellCmd struct {
	joining
	Container string `arg:"" optional:"" help:"As for berth exec. Without one, the only one of yours that runs on this machine."`
}

// Run does not return when all is well.
func (c *shellCmd) Run(ctx context.Context, s *session) error {
	t, err := c.target(launcher.FindRunning)
	if err != nil {
		return err
	}
	return c.run(ctx, s, t, func(r *launcher.Running) ([]string, error) { return findShell(r, s.env("SHELL")) },
		append([]string{"shell"}, c.flags()...), nil)
}

func (c *shellCmd) target(look running) (target, error) {
	if c.Container != "" {
		return parseTarget(c.Container)
	}
	all, err := look()
	switch {
	case err != nil:
		return target{}, err
	case len(all) == 1:
		return target{text: nameOf(all[0]), pid: all[0].PIDs[0]}, nil
	case len(all) > 1:
		return target{}, &fault.Error{
			Op: "look for container", Blame: fault.User, Err: fmt.Errorf("there are several: %s", names(all)), Remedy: "name one of them",
		}
	}
	return target{}, target{text: "of yours"}.notHere(nil)
}

// findShell returns the shell of the container: the user's own, where the
// image has it, else bash, else sh.
func findShell(r *launcher.Running, own string) ([]string, error) {
	root, err := os.OpenFile(filepath.Join("/proc", strconv.Itoa(r.PIDs[0]), "root"), unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fault.Wrap("join container", nameOf(r), fault.User, "look whether it still runs: berth exec --list", err)
	}
	defer root.Close()
	for _, path := range []string{own, "/bin/bash", "/usr/bin/bash", "/bin/sh", "/usr/bin/sh"} {
		if filepath.IsAbs(path) && isProgram(root, path) {
			return []string{path}, nil
		}
	}
	return nil, &fault.Error{
		Op: "find a shell in container", Arg: nameOf(r), Blame: fault.User, Err: errors.New("the image has none"),
		Remedy: "run a program that it has: berth exec " + nameOf(r) + " COMMAND",
	}
}

// isProgram follows the image's symbolic links within the image.
func isProgram(root *os.File, path string) bool {
	fd, err := unix.Openat2(int(root.Fd()), path, &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS})
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	return unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFREG && st.Mode&0o111 != 0
}
