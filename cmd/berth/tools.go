package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"

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
// a kernel setting does.
func explainNamespaces(err error) error {
	for _, knob := range []struct{ path, forbids, remedy string }{
		{"/proc/sys/user/max_user_namespaces", "0", "sysctl user.max_user_namespaces=15000"},
		{"/proc/sys/kernel/unprivileged_userns_clone", "0", "sysctl kernel.unprivileged_userns_clone=1"},
		{"/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1", "sysctl kernel.apparmor_restrict_unprivileged_userns=0, or install Berth's AppArmor profile"},
	} {
		value, readErr := os.ReadFile(knob.path)
		if readErr == nil && strings.TrimSpace(string(value)) == knob.forbids {
			return fault.Wrap("make user namespaces", "", fault.Site, "this machine's kernel forbids them; its admin can allow them by: "+knob.remedy, err)
		}
	}
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		return fault.Wrap("make user namespaces", "", fault.Site, "something other than a sysctl forbids them: a container without that right, seccomp, or a security module", err)
	}
	return fault.Wrap("make user namespaces", "", fault.Bug, "", err)
}
