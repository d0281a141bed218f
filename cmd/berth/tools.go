package main

import (
	"fmt"
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

// explainNamespaces says what keeps users from making user namespaces, and the
// exact fix. An error for which nothing of that kind is found stays a bug.
func explainNamespaces(err error) error {
	r := doctor.ForbiddenNamespaces()
	if !r.Found {
		return fault.Wrap("make user namespaces", "", fault.Bug, "", err)
	}
	return fault.Wrap("make user namespaces", "", fault.Site, r.Remedy, fmt.Errorf("%s (%w)", r.Cause, err))
}

// explainBuilder is explainNamespaces for a container that could not be made:
// AppArmor lets users make namespaces, and then do nothing in them.
func explainBuilder(err error) error {
	if fault.Of(err) != fault.Bug || !doctor.ForbiddenNamespaces().Found {
		return err
	}
	return explainNamespaces(err)
}
