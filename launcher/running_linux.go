package launcher

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// A Running is a container that processes of the caller are in.
type Running struct {
	Marker
	PIDs []int // some processes in it, in ascending order

	namespace string // of its mount namespace, as in mnt:[4026532000]
}

// FindRunning returns the containers in which processes of the caller's user
// run on this machine, by their first process. It asks the kernel alone (proc
// says whose a process is, and in which namespaces), so it finds those of jobs
// and those that were started by hand, and nobody else's. Root finds root's
// own: it enters no container of a user.
func FindRunning() ([]*Running, error) {
	own, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		return nil, err
	}
	pids, err := ownProcesses()
	if err != nil {
		return nil, err
	}
	var all []*Running
	for _, pid := range pids {
		namespace, err := os.Readlink(procPath(pid, "ns/mnt"))
		if err != nil || namespace == own {
			continue // it ended, or it is none of ours
		}
		if i := slices.IndexFunc(all, func(r *Running) bool { return r.namespace == namespace }); i >= 0 {
			all[i].PIDs = append(all[i].PIDs, pid)
			continue
		}
		if m, err := readMarker(pid, namespace); err == nil {
			all = append(all, &Running{Marker: *m, PIDs: []int{pid}, namespace: namespace})
		}
	}
	return all, nil
}

// RunningAt is the container that one process of the caller's is in.
func RunningAt(pid int) (*Running, error) {
	namespace, err := os.Readlink(procPath(pid, "ns/mnt"))
	if err != nil {
		return nil, err
	}
	m, err := readMarker(pid, namespace)
	if err != nil {
		return nil, err
	}
	return &Running{Marker: *m, PIDs: []int{pid}, namespace: namespace}, nil
}

func procPath(pid int, name string) string {
	return filepath.Join("/proc", strconv.Itoa(pid), name)
}

// ownProcesses lists the processes of the caller's effective user, in
// ascending order. Those that cannot be dumped count as root's.
func ownProcesses() ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, e := range entries {
		var st unix.Stat_t
		pid, err := strconv.Atoi(e.Name())
		if err == nil && unix.Stat(procPath(pid, ""), &st) == nil && int(st.Uid) == os.Geteuid() {
			pids = append(pids, pid)
		}
	}
	slices.Sort(pids)
	return pids, nil
}

// errNoMarker says that a process is in no container of Berth's.
var errNoMarker = errors.New("no container")

// readMarker reads the marker of the container that a process is in. The list
// of its mounts is looked at first: a lookup in a namespace of somebody else's
// making could wait for ever for a file server.
func readMarker(pid int, namespace string) (*Marker, error) {
	if !hasMarker(pid) {
		return nil, errNoMarker
	}
	f, err := os.OpenFile(procPath(pid, "root"+MarkerPath), os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := checkMarker(f); err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, maxMarker))
	if err != nil {
		return nil, err
	}
	m, err := decodeMarker(data)
	if err == nil && namespace != fmt.Sprintf("mnt:[%d]", m.Mount) {
		err = errNoMarker // a program in the container made that one
	}
	return m, err
}

// hasMarker says whether a tmpfs is mounted at MarkerPath for a process.
func hasMarker(pid int) bool {
	f, err := os.Open(procPath(pid, "mountinfo"))
	if err != nil {
		return false
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		left, right, _ := strings.Cut(lines.Text(), " - ")
		fields := strings.Fields(left)
		if len(fields) > 4 && fields[4] == MarkerPath && strings.HasPrefix(right, "tmpfs ") {
			return true
		}
	}
	return false
}

func checkMarker(f *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || int(st.Uid) != os.Geteuid() {
		return errNoMarker
	}
	return nil
}

// Open opens the container to be joined, by whichever of its processes is
// still there. What the kernel says of each namespace is checked: its type, its
// owner and what it belongs to.
func (r *Running) Open() (*Container, *UserNamespaces, error) {
	result, err := NewResult(r.Result)
	if err != nil {
		return nil, nil, err
	}
	c := &Container{Result: result}
	err = errors.New("its last process has ended")
	for _, pid := range r.PIDs {
		var users *UserNamespaces
		if users, err = r.openNamespaces(pid, c); err == nil {
			return c, users, nil
		}
	}
	result.Close()
	return nil, nil, err
}

// openNamespaces opens the namespaces of one process of the container.
func (r *Running) openNamespaces(pid int, c *Container) (*UserNamespaces, error) {
	mount, err := os.Open(procPath(pid, "ns/mnt"))
	if err != nil {
		return nil, err
	}
	users, err := r.openUsers(pid, mount)
	if err != nil {
		mount.Close()
		return nil, fmt.Errorf("process %d: %w", pid, err)
	}
	if c.Own, err = r.openOwn(pid, users.Outer); err != nil {
		mount.Close()
		users.Close()
		return nil, fmt.Errorf("process %d: %w", pid, err)
	}
	c.Mount = mount
	return users, nil
}

// openOwn opens the namespaces that the container has of its own. Beside those
// in its pid namespace there is a process that waits for them outside.
func (r *Running) openOwn(pid int, outer *os.File) ([]Namespace, error) {
	var own []Namespace
	for _, kind := range r.Unshare {
		f, err := os.Open(procPath(pid, "ns/"+kind))
		if err == nil {
			own = append(own, Namespace{kind, f})
			err = checkOwn(f, kind, outer)
		}
		if err != nil {
			for _, ns := range own {
				ns.Close()
			}
			return nil, err
		}
	}
	return own, nil
}

// openUsers finds N1, which the mount namespace belongs to, and N2, which the
// process is in or below. Where tasks appear as root there is none: Inner is
// then N1 again.
func (r *Running) openUsers(pid int, mount *os.File) (*UserNamespaces, error) {
	if err := r.checkMount(mount); err != nil {
		return nil, err
	}
	outer, err := nsIoctlFile(mount, unix.NS_GET_USERNS)
	if err != nil {
		return nil, err
	}
	inner, err := r.openInner(pid, outer)
	if err != nil {
		outer.Close()
		return nil, err
	}
	users := &UserNamespaces{Outer: outer, Inner: inner}
	if err := r.checkUsers(users); err != nil {
		users.Close()
		return nil, err
	}
	return users, nil
}

// checkMount refuses the namespace of a process that took the number of
// another one meanwhile.
func (r *Running) checkMount(mount *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(mount.Fd()), &st); err != nil {
		return err
	}
	if st.Ino != r.Mount {
		return errors.New("it is in the container no more")
	}
	return checkNSType(mount, unix.CLONE_NEWNS)
}

func (r *Running) checkUsers(users *UserNamespaces) error {
	if !r.Remap {
		return users.Check(os.Geteuid())
	}
	return checkOwner(users.Outer, os.Geteuid())
}

// openInner climbs from the user namespace of a process to the child of outer:
// a program may have made further ones.
func (r *Running) openInner(pid int, outer *os.File) (*os.File, error) {
	if r.Remap {
		fd, err := unix.FcntlInt(outer.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		return os.NewFile(uintptr(fd), "namespace"), os.NewSyscallError("fcntl(F_DUPFD_CLOEXEC)", err)
	}
	ns, err := os.Open(procPath(pid, "ns/user"))
	if err != nil {
		return nil, err
	}
	for {
		parent, err := nsIoctlFile(ns, unix.NS_GET_PARENT)
		if err != nil { // EPERM above the caller's own
			ns.Close()
			return nil, fmt.Errorf("it is not what a task of the container is: %w", err)
		}
		if sameNamespace(parent, outer) == nil {
			parent.Close()
			return ns, nil
		}
		ns.Close()
		ns = parent
	}
}

// NewResult puts what tasks apply after joining into a sealed memory file.
func NewResult(data []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate("berth-result", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), "result")
	if _, err := io.Copy(f, bytes.NewReader(data)); err != nil {
		f.Close()
		return nil, err
	}
	const seals = unix.F_SEAL_WRITE | unix.F_SEAL_GROW | unix.F_SEAL_SHRINK | unix.F_SEAL_SEAL
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, seals); err != nil {
		f.Close()
		return nil, os.NewSyscallError("fcntl(F_ADD_SEALS)", err)
	}
	return f, nil
}
