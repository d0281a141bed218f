package doctor

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// A Refusal is what keeps users from making user namespaces that are of use,
// and the exact fix. Found is false where all that was looked at allows them.
type Refusal struct {
	Cause, Remedy string
	Found         bool
}

// ForbiddenNamespaces looks for what forbids them here: it makes one, and reads
// the switches that kernels and distributions have. It is for those whose
// namespaces have failed: where it finds nothing, it says so.
func ForbiddenNamespaces() Refusal {
	return forbiddenNamespaces("/", tryNamespace())
}

// tryNamespace makes a user namespace, for a process that ends at once because
// its program does not exist.
func tryNamespace() error {
	cmd := exec.Command("/proc/self/exe/none")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER}
	err := cmd.Run()
	if errors.Is(err, unix.ENOTDIR) {
		return nil
	}
	return err
}

// A knob is a file of the kernel that forbids user namespaces by its value.
type knob struct{ path, forbids, cause, remedy string }

// persistent is how a sysctl is set, for now and for ever.
func persistent(setting string) string {
	return "sysctl -w " + setting + ", and the same line (" + setting + ") in /etc/sysctl.d/90-berth.conf"
}

func knobs() []knob {
	return []knob{
		{
			"proc/sys/user/max_user_namespaces", "0", "user.max_user_namespaces is 0",
			persistent("user.max_user_namespaces=15000"),
		},
		{ // Debian's and Arch's kernels
			"proc/sys/kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone is 0",
			persistent("kernel.unprivileged_userns_clone=1"),
		},
		{ // ALT Linux
			"proc/sys/kernel/userns_restrict", "1", "kernel.userns_restrict is 1",
			persistent("kernel.userns_restrict=0"),
		},
		{ // Ubuntu 23.10 and later
			"proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1",
			"AppArmor takes all rights from the user namespaces of programs without a profile (kernel.apparmor_restrict_unprivileged_userns is 1)",
			"install Berth's AppArmor profile: install -m 644 packaging/apparmor/berth /etc/apparmor.d/berth && apparmor_parser -r /etc/apparmor.d/berth (it is for /usr and /usr/local and /opt/berth); or for all programs: " + persistent("kernel.apparmor_restrict_unprivileged_userns=0"),
		},
	}
}

// forbiddenNamespaces is ForbiddenNamespaces with the files below root, and
// with what became of an attempt.
func forbiddenNamespaces(root string, tried error) Refusal {
	for _, k := range knobs() {
		if value, err := os.ReadFile(filepath.Join(root, k.path)); err == nil && strings.TrimSpace(string(value)) == k.forbids {
			return Refusal{k.cause, "the admin allows them by: " + k.remedy, true}
		}
	}
	switch {
	case tried == nil:
		return Refusal{
			Cause:  "users can make them, but have no rights in them",
			Remedy: "look for a security module that takes the rights: journalctl -k | grep -i -e apparmor -e avc",
		}
	case errors.Is(tried, unix.ENOSPC) || errors.Is(tried, unix.EUSERS):
		return Refusal{
			"the limit on their number or depth is reached (user.max_user_namespaces)",
			"end processes that hold some, or raise the limit: sysctl -w user.max_user_namespaces=100000; 32 is the most that can be nested", true,
		}
	case errors.Is(tried, unix.EINVAL) || errors.Is(tried, unix.ENOSYS) && !filtered(root):
		return Refusal{"this kernel has none", "a kernel with CONFIG_USER_NS", true}
	case filtered(root):
		return filterRefusal(root)
	}
	return Refusal{
		"no sysctl and no seccomp filter forbids them",
		"look for a security module (journalctl -k | grep -i -e apparmor -e avc), or a chroot: in one the kernel allows none", true,
	}
}

// filtered says whether a seccomp filter is on the process.
func filtered(root string) bool {
	status, err := os.ReadFile(filepath.Join(root, "proc/self/status"))
	return err == nil && strings.Contains(string(status), "\nSeccomp:\t2\n")
}

// filterRefusal knows the programs that put such a filter on all they run.
func filterRefusal(root string) Refusal {
	r := Refusal{
		"a seccomp filter that was put on this process forbids them",
		"start it without that filter; systemd units have it by RestrictNamespaces= and SystemCallFilter=", true,
	}
	for _, of := range []struct{ mark, program string }{{".dockerenv", "docker"}, {"run/.containerenv", "podman"}} {
		if _, err := os.Stat(filepath.Join(root, of.mark)); err == nil {
			r.Cause = "the seccomp filter of the " + of.program + " container around this process forbids them"
			r.Remedy = "start that container by: " + of.program + " run --security-opt seccomp=unconfined --security-opt apparmor=unconfined --security-opt systempaths=unconfined --device /dev/fuse"
		}
	}
	return r
}
