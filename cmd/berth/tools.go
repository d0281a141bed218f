package main

import (
	"errors"
	"os"
	"path/filepath"

	"github.com/berth-hpc/berth/cmd/internal/doctor"
	"github.com/berth-hpc/berth/fault"
	"golang.org/x/sys/unix"
)

// tools are the small programs that make and join containers.
type tools struct{ create, join string }

// findTools looks beside this program, in ../libexec/berth, or where
// BERTH_LIBEXEC says.
func (s *session) findTools() (tools, error) {
	dir := s.env("BERTH_LIBEXEC")
	if dir == "" || s.user.uid == 0 {
		self, err := os.Executable()
		if err != nil {
			return tools{}, err
		}
		dir = filepath.Join(filepath.Dir(filepath.Dir(self)), "libexec", "berth")
	}
	t := tools{create: filepath.Join(dir, "berth-create"), join: filepath.Join(dir, "berth-join")}
	for _, program := range []string{t.create, t.join} {
		if err := unix.Access(program, unix.X_OK); err != nil {
			return tools{}, fault.Wrap("find", program, fault.Site, "install Berth with its libexec folder, or set BERTH_LIBEXEC to that folder", err)
		}
	}
	return t, nil
}

// explainNamespaces says what keeps users from making user namespaces, where
// that can be seen.
func explainNamespaces(err error) error {
	knob := doctor.NamespaceKnob()
	switch {
	case knob != "":
		return fault.Wrap("make user namespaces", "", fault.Site, "this machine's kernel forbids them; its admin can allow them by: "+knob, err)
	case errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES):
		return fault.Wrap("make user namespaces", "", fault.Site, "something other than a sysctl forbids them: a container without that right, seccomp, or a security module", err)
	}
	return fault.Wrap("make user namespaces", "", fault.Bug, "", err)
}
