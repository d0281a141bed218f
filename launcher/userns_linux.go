package launcher

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// A User is who a container is for, as the kernel and the container's passwd
// file see them. Groups are the supplementary groups.
type User struct {
	UID    int    `json:"uid"`
	GID    int    `json:"gid"`
	Groups []int  `json:"groups,omitempty"`
	Name   string `json:"name,omitempty"`
	Home   string `json:"home,omitempty"`
	Shell  string `json:"shell,omitempty"`
	// SubIDs are further ids that their user namespaces map; see FindSubIDs.
	SubIDs SubIDs `json:"subIDs"`
}

func (u User) groupList() string {
	s := make([]string, len(u.Groups))
	for i, g := range u.Groups {
		s[i] = strconv.Itoa(g)
	}
	return strings.Join(s, ",")
}

// UserNamespaces are the two user namespaces that all containers of a job on
// a node share, so that its processes may read each other's memory (CMA,
// process_vm_readv(2), is refused between user namespaces).
//
// Outer (N1) is owned by the user and maps 0 to the user's uid; it owns the
// containers' mount namespaces. Inner (N2) is its child and maps the user's
// uid to itself, so that the user is themself inside and holds no capability
// over the mounts. Where root made them, the user's groups are mapped one to
// one; without privilege only the primary group is. With SubIDs, Outer maps
// these, too, from 1 on; Inner never does.
type UserNamespaces struct{ Outer, Inner *os.File }

// Close releases the descriptors. The namespaces live on while a process is
// in them or a pin holds them.
func (ns *UserNamespaces) Close() {
	ns.Outer.Close()
	ns.Inner.Close()
}

// NewUserNamespaces makes both namespaces for u. It runs as root on a managed
// node and as u themself elsewhere. exe is a program that links package
// nsenter; it does the work in a process of its own, because a threaded
// program can't, and what it sends back is checked here before use.
func NewUserNamespaces(ctx context.Context, exe string, u User) (*UserNamespaces, error) {
	ours, theirs, err := socketpair()
	if err != nil {
		return nil, err
	}
	defer ours.Close()
	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, exe, "userns", strconv.Itoa(u.UID), strconv.Itoa(u.GID), u.groupList(),
		u.SubIDs.UIDs.String(), u.SubIDs.GIDs.String())
	cmd.Env = fixedEnvironment()
	cmd.Dir = "/"
	cmd.Stderr = &stderr
	cmd.ExtraFiles = []*os.File{theirs}
	err = cmd.Run()
	theirs.Close()
	if err != nil {
		return nil, fmt.Errorf("create user namespaces: %w", withOutput(err, stderr.Bytes()))
	}
	p, err := ReceivePacket(ours, 1)
	if err != nil {
		return nil, fmt.Errorf("create user namespaces: %w", err)
	}
	return checkUserNamespaces(p.Files, u.UID)
}

// checkUserNamespaces takes the descriptors only when they are what they
// should be: the process that sent them ran as the user.
func checkUserNamespaces(fds []*os.File, uid int) (*UserNamespaces, error) {
	if len(fds) != 2 {
		closeAll(fds)
		return nil, fmt.Errorf("create user namespaces: got %d descriptors", len(fds))
	}
	ns := &UserNamespaces{Outer: fds[0], Inner: fds[1]}
	if err := ns.Check(uid); err != nil {
		ns.Close()
		return nil, fmt.Errorf("check user namespaces: %w", err)
	}
	return ns, nil
}

// Check says what is wrong with ns as the namespaces of a user: their type,
// their owner, or that one is not the other's child.
func (ns *UserNamespaces) Check(uid int) error {
	for _, f := range []*os.File{ns.Outer, ns.Inner} {
		if err := checkOwner(f, uid); err != nil {
			return err
		}
	}
	parent, err := nsIoctlFile(ns.Inner, unix.NS_GET_PARENT)
	if err != nil {
		return err
	}
	defer parent.Close()
	return sameNamespace(parent, ns.Outer)
}

// checkOwner refuses what is not a user namespace of uid's.
func checkOwner(f *os.File, uid int) error {
	if err := checkNSType(f, unix.CLONE_NEWUSER); err != nil {
		return err
	}
	owner, err := ownerUID(f)
	if err == nil && owner != uid {
		err = fmt.Errorf("owner is uid %d, want %d", owner, uid)
	}
	return err
}

// ownerUID is NS_GET_OWNER_UID of ioctl_ns(2), Linux 4.11.
func ownerUID(f *os.File) (int, error) {
	uid, err := unix.IoctlGetUint32(int(f.Fd()), unix.NS_GET_OWNER_UID)
	if err != nil {
		return 0, os.NewSyscallError("ioctl(NS_GET_OWNER_UID)", err)
	}
	return int(uid), nil
}

func checkNSType(f *os.File, want int) error {
	got, err := unix.IoctlRetInt(int(f.Fd()), unix.NS_GET_NSTYPE)
	if err != nil {
		return fmt.Errorf("not a namespace: %w", err)
	}
	if got != want {
		return fmt.Errorf("namespace of type %#x, want %#x", got, want)
	}
	return nil
}

func nsIoctlFile(f *os.File, req uint) (*os.File, error) {
	fd, err := unix.IoctlRetInt(int(f.Fd()), req)
	if err != nil {
		return nil, os.NewSyscallError("ioctl of a namespace", err)
	}
	return os.NewFile(uintptr(fd), "namespace"), nil
}

func sameNamespace(a, b *os.File) error {
	var sa, sb unix.Stat_t
	if err := errors.Join(unix.Fstat(int(a.Fd()), &sa), unix.Fstat(int(b.Fd()), &sb)); err != nil {
		return err
	}
	if sa.Dev != sb.Dev || sa.Ino != sb.Ino {
		return fmt.Errorf("namespace %d is not %d", sa.Ino, sb.Ino)
	}
	return nil
}

// checkHostMountNamespace refuses a mount namespace that belongs to a user
// namespace other than our own: root never enters one that a user controls.
func checkHostMountNamespace(f *os.File) error {
	if err := checkNSType(f, unix.CLONE_NEWNS); err != nil {
		return err
	}
	owner, err := nsIoctlFile(f, unix.NS_GET_USERNS)
	if err != nil {
		return err
	}
	defer owner.Close()
	own, err := os.Open("/proc/self/ns/user")
	if err != nil {
		return err
	}
	defer own.Close()
	if err := sameNamespace(owner, own); err != nil {
		return fmt.Errorf("mount namespace belongs to another user namespace: %w", err)
	}
	return nil
}

// fixedEnvironment is all that the processes started here get: nothing of a
// job's environment reaches them.
func fixedEnvironment() []string {
	return []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C"}
}

// withOutput puts what a helper process said into its exit error.
func withOutput(err error, output []byte) error {
	if text := strings.TrimSpace(string(output)); text != "" {
		return fmt.Errorf("%w: %s", err, text)
	}
	return err
}

func credential(u User) *syscall.Credential {
	c := &syscall.Credential{Uid: uint32(u.UID), Gid: uint32(u.GID)}
	for _, g := range u.Groups {
		c.Groups = append(c.Groups, uint32(g))
	}
	return c
}
