package doctor

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

const filteredStatus = "Name:\tx\nSeccomp:\t2\nSeccomp_filters:\t1\n"

// TestForbiddenNamespaces: each switch is named with its exact fix, and what an
// attempt met where no switch says no.
func TestForbiddenNamespaces(t *testing.T) {
	for _, tc := range []struct {
		name         string
		file, value  string
		tried        error
		cause, fix   string
		mark, status string
	}{
		{name: "max", file: "proc/sys/user/max_user_namespaces", value: "0\n", tried: unix.ENOSPC, cause: "max_user_namespaces is 0", fix: "sysctl -w user.max_user_namespaces=15000, and the same line"},
		{name: "Debian", file: "proc/sys/kernel/unprivileged_userns_clone", value: "0\n", tried: unix.EPERM, cause: "unprivileged_userns_clone", fix: "sysctl -w kernel.unprivileged_userns_clone=1"},
		{name: "ALT", file: "proc/sys/kernel/userns_restrict", value: "1\n", tried: unix.EPERM, cause: "userns_restrict", fix: "sysctl -w kernel.userns_restrict=0"},
		{name: "Ubuntu", file: "proc/sys/kernel/apparmor_restrict_unprivileged_userns", value: "1\n", cause: "AppArmor", fix: "apparmor_parser -r /etc/apparmor.d/berth"},
		{name: "Ubuntu, lifted", file: "proc/sys/kernel/apparmor_restrict_unprivileged_userns", value: "0\n", cause: "no rights in them", fix: "security module"},
		{name: "limit", file: "proc/sys/user/max_user_namespaces", value: "1000\n", tried: unix.ENOSPC, cause: "limit", fix: "raise"},
		{name: "no such kernel", tried: unix.EINVAL, cause: "has none", fix: "CONFIG_USER_NS"},
		{name: "docker", tried: unix.EPERM, status: filteredStatus, mark: ".dockerenv", cause: "docker container", fix: "docker run --security-opt seccomp=unconfined"},
		{name: "podman", tried: unix.EPERM, status: filteredStatus, mark: "run/.containerenv", cause: "podman container", fix: "podman run --security-opt seccomp=unconfined"},
		{name: "a unit", tried: unix.EPERM, status: filteredStatus, cause: "seccomp filter", fix: "RestrictNamespaces="},
		{name: "a filter that knows no such call", tried: unix.ENOSYS, status: filteredStatus, cause: "seccomp filter", fix: "RestrictNamespaces="},
		{name: "chroot", tried: unix.EPERM, cause: "no sysctl", fix: "chroot"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			root := t.TempDir()
			write(t, root, tc.file, tc.value)
			write(t, root, tc.mark, "")
			if tc.status != "" {
				write(t, root, "proc/self/status", tc.status)
			}
			got := forbiddenNamespaces(root, tc.tried)
			if !strings.Contains(got.Cause, tc.cause) || !strings.Contains(got.Remedy, tc.fix) {
				t.Errorf("%+v", got)
			}
			if got.Found != (tc.tried != nil || tc.name == "Ubuntu") {
				t.Errorf("found: %v", got.Found)
			}
		})
	}
}

func write(t *testing.T, root, path, text string) {
	t.Helper()
	if path == "" {
		return
	}
	path = filepath.Join(root, path)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), fs.FileMode(0o644))); err != nil {
		t.Fatal(err)
	}
}

// TestFilterForbidsNamespaces puts the filter on that containers of docker have:
// clone with a new user namespace fails.
func TestFilterForbidsNamespaces(t *testing.T) {
	if err := tryNamespace(); err != nil {
		t.Skipf("no user namespaces here anyway: %v", err)
	}
	var got Refusal
	// The same number for every flag: the child of a plain fork is vforked by clone, too.
	err := withoutCall(unix.SYS_CLONE, func() error { got = forbiddenNamespaces(t.TempDir(), tryNamespace()); return nil })
	if err != nil {
		t.Fatal(err)
	}
	if !got.Found || !strings.Contains(got.Remedy, "CONFIG_USER_NS") {
		t.Errorf("without a sign of the filter: %+v", got)
	}
	err = withoutCall(unix.SYS_CLONE, func() error {
		root := t.TempDir()
		status, err := os.ReadFile("/proc/thread-self/status")
		write(t, root, "proc/self/status", string(status))
		got = forbiddenNamespaces(root, tryNamespace())
		return err
	})
	if err != nil || !got.Found || !strings.Contains(got.Cause, "seccomp filter") {
		t.Errorf("with one: %+v, %v", got, err)
	}
}
